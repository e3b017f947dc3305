"""``lawm_pi05``: LeRobot's pi0.5 with LAWM pretraining."""
