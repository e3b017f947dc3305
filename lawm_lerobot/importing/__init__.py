"""Video sources -> action-free LeRobotDataset (`lawm-import-videos`).

Read in this order: `sources` (what there is), `plan` (what is taken), `decoding` and `encoding` (one clip), `workers`
(many at a time), `assembly` (the LeRobotDataset), `importer` (the whole run).

This package imports nothing heavy when loaded: worker processes import it, and they need neither torch nor LeRobot.
"""
