"""The part that SmolVLA, pi0 and pi0.5 share: a vision-language model and an action expert, trained by flow matching."""
