from .kept_reasons import Kept, register_parameter
from .parameter_coverage import Coverage, CoverageError, coverage
from .registry import register_layer
from .trace import TracingError, from_module
from .verification import Verification, verify

__all__ = [
    "Coverage",
    "CoverageError",
    "Kept",
    "TracingError",
    "Verification",
    "coverage",
    "from_module",
    "register_layer",
    "register_parameter",
    "verify",
]
