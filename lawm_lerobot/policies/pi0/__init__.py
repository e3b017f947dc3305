"""``lawm_pi0``: LeRobot's pi0 with LAWM pretraining."""
