"""The error of everything that finds, reads and writes checkpoints."""

from ...utils.suggest import printable


class CheckpointError(ValueError):
    """A checkpoint cannot be found, read or written, or does not hold what it should."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # names in files may have any length and any characters
