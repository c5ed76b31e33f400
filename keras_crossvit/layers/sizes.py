"""Sizes of tensors, in graphs that may not know them."""

from typing import Any

from keras import ops

from keras_crossvit.common.typing import Shape, Tensor


def size(x: Tensor, axis: int) -> Any:
    """The size of an axis: an integer, or a tensor in a TensorFlow graph that does not know it."""
    known = x.shape[axis]
    return ops.shape(x)[axis] if known is None else known


def of_size(images: Tensor, shape: Shape) -> Tensor:
    """The images, whose size a TensorFlow graph may not know: it then checks it as it runs.

    Args:
        images: `(B, H, W, channels)`.
        shape: `(H, W, channels)` for which a layer was built, of which `None` may be any.
    """
    if None not in images.shape[1:]:
        return images
    import tensorflow as tf  # other backends know all sizes

    return tf.ensure_shape(images, (None, *shape))
