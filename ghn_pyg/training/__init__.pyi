from .checkpoints import TrainingError
from .config import TrainConfig, load_config, recipe_names
from .initial_weights import calibrate
from .run import Run, run_training, train

__all__ = ["Run", "TrainConfig", "TrainingError", "calibrate", "load_config", "recipe_names", "run_training", "train"]
