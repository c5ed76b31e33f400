"""The exact GELU of the published checkpoints."""

import math

import keras
from keras import ops

from keras_crossvit.common.typing import Tensor


@keras.saving.register_keras_serializable(package="keras_crossvit")
def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit, `x * Phi(x)`, of a tensor of any shape.

    On TensorFlow it is written with `erf`, because TensorFlow's own exact GELU emits the
    operation `Erfc`, which ONNX converters do not know. The tanh approximation would change
    the logits by 1e-3.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.gelu(x, approximate=False)
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))
