"""``lawm_vqbet``: LeRobot's VQ-BeT with LAWM pretraining."""
