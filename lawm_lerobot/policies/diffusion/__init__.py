"""``lawm_diffusion``: LeRobot's Diffusion Policy with LAWM pretraining."""
