"""What is published on the Hub: cards, and copies that say nothing of this machine."""
