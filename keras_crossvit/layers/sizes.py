"""Sizes of tensors, in graphs that may not know them."""

from typing import Any

from keras import ops

from keras_crossvit.common.typing import Tensor


def size(x: Tensor, axis: int) -> Any:
    """The size of an axis: an integer, or a tensor in a TensorFlow graph that does not know it."""
    known = x.shape[axis]
    return ops.shape(x)[axis] if known is None else known
