"""What every ``lawm_*`` policy shares: the stages, the pretraining loss, and the transfer of weights."""
