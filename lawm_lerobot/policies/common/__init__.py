"""The part that all `lawm_*` policies share."""
