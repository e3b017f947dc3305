"""World models: what predicts the coming frames of a clip from its first one and the latent actions."""
