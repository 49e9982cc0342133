"""Benchmarks that take seconds."""

from ghn_pyg.bench import BenchConfig

RECIPE = {
    "recipe": "digits",
    "changes": [
        "widths={widths: [8], hidden: [16]}", "epochs=1", "warmup_epochs=0", "image_size=8", "meta_batch=1",
        "batch_size=512", "ghn.max_channels=8", "ghn.max_kernel_size=3", "calibrate=false",
    ],
    "width": 8,
}  # fmt: skip
LONG_RANGE = {"graphs": 24, "epochs": 1, "longest": 9}


def bench(tasks=None, **changes):
    """Two encoders with one seed on a task of a second."""
    values = {"encoders": ["mlp", "gcn"], "seeds": [0], "hidden_channels": 8, "layers": 1, "heads": 2}
    return BenchConfig.from_dict({**values, "tasks": {"long_range": LONG_RANGE} if tasks is None else tasks, **changes})
