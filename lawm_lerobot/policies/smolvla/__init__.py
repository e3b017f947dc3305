"""``lawm_smolvla``: LeRobot's SmolVLA with LAWM pretraining."""
