"""``lawm_act``: LeRobot's Action Chunking Transformer with LAWM pretraining."""
