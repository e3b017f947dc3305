"""Meta-World for LeRobot: quick pictures, scenes that vary, and its scripted experts."""
