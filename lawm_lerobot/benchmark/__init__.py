"""The evidence benchmark: arms, plans, runs and their table."""
