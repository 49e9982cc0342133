from .errors import CheckpointError
from .locate import resolve
from .read import read_checkpoint
from .shard_reader import SavedTensors, ShardIndex
from .write import write_folder

__all__ = ["CheckpointError", "SavedTensors", "ShardIndex", "read_checkpoint", "resolve", "write_folder"]
