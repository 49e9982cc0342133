"""Architecture → graph: tracing a network and rewriting what was recorded."""
