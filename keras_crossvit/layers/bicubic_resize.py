"""The resize that gives each branch its own view of the image."""

from typing import Any

import keras
from keras import ops

from keras_crossvit.common.bicubic import bicubic_matrix
from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.common.typing import DType, Shape, Tensor
from keras_crossvit.layers.sizes import of_size


@keras.saving.register_keras_serializable(package="keras_crossvit")
class BicubicResize(keras.layers.Layer):
    """Resizes images by two constant matrices, `R_h @ image @ R_w^T`.

    The released code resizes the large branch's image inside the model, which the paper does
    not mention. Matrix products reproduce its pixels, have a gradient, and are supported by
    every backend, by XLA and by every export format. The layer computes in float32 by default,
    whatever the global dtype policy: in bfloat16, pixels would lose half of their bits.

    Args:
        height: Height of the output in pixels, positive.
        width: Width of the output in pixels, positive.

    Call arguments:
        images: `(B, H, W, C)`, with known H and W.

    Returns:
        `(B, height, width, C)`.

    Raises:
        ValueError: If a size is not a positive integer, or the input's size is unknown.
    """

    def __init__(self, height: int, width: int, dtype: DType = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.height = check_positive_int("height", height)
        self.width = check_positive_int("width", width)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                "BicubicResize needs images `(B, H, W, C)` of known size. "
                f"Received: input_shape={input_shape}"
            )
        self._built_for = tuple(input_shape[1:])

    def call(self, images: Tensor) -> Tensor:
        images = of_size(images, self._built_for)
        _, height, width, channels = images.shape
        rows = ops.convert_to_tensor(bicubic_matrix(height, self.height), self.compute_dtype)
        columns = ops.convert_to_tensor(bicubic_matrix(width, self.width).T, self.compute_dtype)
        planes = ops.transpose(images, (0, 3, 1, 2))  # (B, C, H, W)
        planes = ops.reshape(ops.matmul(rows, planes), (-1, width))
        # With two axes: TensorFlow 2.20 and 2.21 compute a batch of single planes times one matrix
        # wrongly, or crash, on some processors.
        planes = ops.matmul(planes, columns)
        planes = ops.reshape(planes, (-1, channels, self.height, self.width))
        return ops.transpose(planes, (0, 2, 3, 1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.height, self.width, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}
