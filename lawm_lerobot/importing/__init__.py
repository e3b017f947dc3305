"""Video sources -> action-free LeRobotDataset (`lawm-import-videos`).

Read in this order: `run` (the whole import), `sources` (what there is), `plan` (what is taken), `tasks` (one piece
of work: `footage`, `fitting`, `resampling`, `encoding`), `workers` (many at a time), `assembly` (the LeRobotDataset).

This package imports nothing heavy when loaded: worker processes import it, and they need neither torch nor LeRobot.
"""
