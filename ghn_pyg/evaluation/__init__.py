"""How well networks with predicted parameters do."""

from .accuracy import Accuracy, measure
from .evaluate import evaluate
from .report import Report, Row
from .subjects import Subject, deepnets_subjects, torchvision_subjects

__all__ = ["Accuracy", "Report", "Row", "Subject", "deepnets_subjects", "evaluate", "measure", "torchvision_subjects"]
