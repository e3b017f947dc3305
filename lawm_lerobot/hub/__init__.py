"""Publishing on the Hub: cards, public names, provenance, upload. Knows no policy."""
