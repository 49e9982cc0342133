from .checkpoints import TrainingError
from .config import RecipeCost, TrainConfig, load_config, recipe_costs, recipe_names
from .cost import Cost, measure_cost
from .folder_recipe import recipe_for_folder
from .ghn_loss import GHNLoss
from .initial_weights import calibrate
from .run import Run, run_training, train
from .step import meta_gradient

__all__ = [
    "Cost", "GHNLoss", "RecipeCost", "Run", "TrainConfig", "TrainingError", "calibrate", "load_config", "measure_cost",
    "meta_gradient", "recipe_costs", "recipe_for_folder", "recipe_names", "run_training", "train",
]  # fmt: skip
