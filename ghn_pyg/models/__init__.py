"""The GHN itself: configuration, prediction, checkpoints."""
