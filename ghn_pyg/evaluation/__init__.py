"""Accuracy of networks with predicted, initial or trained parameters.

The imports are eager, unlike in other subpackages: the function ``evaluate`` must replace the module of the same name,
so that both ``from ghn_pyg.evaluation import evaluate`` and ``from ghn_pyg.evaluation.evaluate import evaluate`` work.
"""

from .accuracy import Accuracy, measure
from .evaluate import evaluate
from .report import Report, Row, agreement, ranked
from .subjects import Subject, deepnets_subjects, named_subject, torchvision_subjects

__all__ = [
    "Accuracy", "Report", "Row", "Subject", "agreement", "deepnets_subjects", "evaluate", "measure", "named_subject",
    "ranked", "torchvision_subjects",
]  # fmt: skip
