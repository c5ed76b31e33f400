"""Mean average precision from counts, which add up over batches, replicas and processes."""

import numpy as np
from keras import ops

from keras_crossvit.common.typing import Tensor

_BINS = 1024
_HIGHEST = 16.0  # logits beyond it, on either side, share the outermost bins


def softmax_scores(logits: Tensor) -> Tensor:
    """`log p - log(1 - p)` of the softmax, which has its order and the range of logits.

    Logits of a softmax themselves can be compared only within a row.

    Args:
        logits: `(B, classes)`.

    Returns:
        float32 `(B, classes)`: each logit less the logarithm of the others' sum of exponentials.
    """
    logits = ops.cast(logits, "float32")
    logits = logits - ops.max(logits, axis=-1, keepdims=True)
    # Not the sum of all less its own, of which nothing is left where one outweighs the rest.
    others = ops.matmul(ops.exp(logits), 1 - ops.eye(logits.shape[-1], dtype="float32"))
    return logits - ops.log(others)


def score_counts(labels: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
    """The number of rows with a logit in each of 1,024 ranges of width 1/32.

    Args:
        labels: `(B, classes)` of zeros and ones.
        logits: `(B, classes)`.
        weights: `(B,)`, how much each row counts.

    Returns:
        float32 `(2, classes, 1024)`: the rows that have the label, and those that do not.
    """
    classes = labels.shape[-1]
    ranges = ops.floor((ops.cast(logits, "float32") + _HIGHEST) * (_BINS / (2 * _HIGHEST)))
    places = ops.cast(ops.clip(ranges, 0, _BINS - 1), "int32") + ops.arange(classes) * _BINS
    counted = ops.expand_dims(weights, -1)
    counts = [
        ops.segment_sum(ops.ravel(part), ops.ravel(places), classes * _BINS)
        for part in (labels * counted, (1 - labels) * counted)
    ]
    return ops.reshape(ops.stack(counts), (2, classes, _BINS))


def mean_average_precision(counts: np.ndarray) -> float:
    """The mean over the classes that some rows have and others lack; NaN if there are none.

    Args:
        counts: Sum of what `score_counts` returned. Scores in one range count as equal; otherwise
            this is scikit-learn's `average_precision_score`.
    """
    present, absent = counts[..., ::-1]  # the highest scores first
    found, false = present.cumsum(-1), absent.cumsum(-1)
    both = (found[:, -1] > 0) & (false[:, -1] > 0)
    if not both.any():
        return float("nan")
    precision = found / np.maximum(found + false, 1)
    return float(((present * precision).sum(-1) / found[:, -1].clip(1))[both].mean())
