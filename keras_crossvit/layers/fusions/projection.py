"""The projections f and g, which align the widths of the branches."""

from typing import Any

import keras

from keras_crossvit.common.typing import DType, Shape, Tensor
from keras_crossvit.layers.activations import gelu
from keras_crossvit.layers.parts import apply_dense, dense, dense_macs, layer_norm


@keras.saving.register_keras_serializable(package="keras_crossvit")
class Projection(keras.layers.Layer):
    """The projections f and g that align the widths of the branches (equations 2 to 5).

    The paper leaves their form open. As in the released code, they are layer normalisation,
    GELU and a dense layer.

    Args:
        units: Width of the output, positive.

    Call arguments:
        tokens: `(B, N, C)`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        `(B, N, units)`.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.norm = layer_norm("norm", self.dtype_policy)
        self.dense = dense(units, "dense", self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        self.norm.build(input_shape)
        self.dense.build(input_shape)

    def call(self, tokens: Tensor, training: bool = False) -> Tensor:
        return apply_dense(self.dense, gelu(self.norm(tokens)), training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample."""
        _, length, width = input_shape
        return dense_macs(length, width, self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def align(name: str, width: int, units: int, dtype: DType) -> keras.layers.Layer:
    """A built `Projection` from `width` to `units`, or the identity if these are equal.

    Branches of equal width have nothing to align: the number of parameters in table 7, row B, is
    that of a model without these projections.
    """
    if width == units:
        return keras.layers.Identity(dtype=dtype, name=name)
    projection = Projection(units, dtype=dtype, name=name)
    projection.build((None, None, width))
    return projection
