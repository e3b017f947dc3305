"""A simulated SO-101 whose joints, units and cameras are named as those of LeRobot's driver of the real arm."""
