"""Meta-training: GHNs learn to predict parameters."""
