"""``lawm_pi0_fast``: LeRobot's pi0-FAST with LAWM pretraining."""
