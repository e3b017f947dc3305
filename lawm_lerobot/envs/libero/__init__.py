"""LIBERO for LeRobot: its installation, fresh placements of its things, and a scripted expert that picks and places.

Nothing is imported here: LIBERO asks questions on standard input when it is imported before it is set up.
"""
