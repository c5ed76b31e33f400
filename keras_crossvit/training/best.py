"""The best epoch of a run, and whether it is too long ago: read from the log's rows."""

import math
from collections.abc import Sequence
from typing import Any

METRICS = ("val_accuracy", "val_loss", "val_mean_average_precision", "val_top5_accuracy")


def best_epoch(rows: Sequence[dict[str, Any]], metric: str) -> int:
    """Index of the row with the best value of `metric`; the first of several.

    The lowest loss is best, and the highest value of any other metric; NaN is worst.
    """
    sign = 1 if metric == "val_loss" else -1

    def order(index):
        value = sign * rows[index][metric]
        return math.inf if math.isnan(value) else value

    return min(range(len(rows)), key=order)


def is_over(rows: Sequence[dict[str, Any]], metric: str, patience: int | None) -> bool:
    """Whether `patience` epochs have passed since the best one; never if it is `None`."""
    return patience is not None and len(rows) - 1 - best_epoch(rows, metric) >= patience
