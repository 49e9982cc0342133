from .calibration import calibrate
from .config import TrainConfig
from .load_config import load_config, recipe_names
from .run import Run, train
from .run_folder import TrainingError

__all__ = ["Run", "TrainConfig", "TrainingError", "calibrate", "load_config", "recipe_names", "train"]
