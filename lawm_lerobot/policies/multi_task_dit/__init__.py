"""``lawm_multi_task_dit``: LeRobot's multi-task Diffusion Transformer with LAWM pretraining."""
