"""The error of everything that finds, reads and writes checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint cannot be found, read or written, or does not hold what it should."""
