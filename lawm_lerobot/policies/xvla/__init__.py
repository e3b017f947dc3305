"""``lawm_xvla``: LeRobot's X-VLA with LAWM pretraining."""
