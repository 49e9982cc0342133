from .checkpoints import TrainingError
from .config import TrainConfig, load_config, recipe_names
from .initial_weights import calibrate
from .run import Run, train

__all__ = ["Run", "TrainConfig", "TrainingError", "calibrate", "load_config", "recipe_names", "train"]
