from .folder import read_checkpoint, write_folder
from .key_names import CheckpointError
from .sharded_files import SavedTensors, ShardWriter

__all__ = ["CheckpointError", "SavedTensors", "ShardWriter", "read_checkpoint", "write_folder"]
