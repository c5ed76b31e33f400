"""Precision of a model's layers: their dtype policy, and `model.quantize`."""

import gc
import warnings
from typing import Any

import keras


def check_dtype(dtype: Any) -> keras.DTypePolicy:
    """The policy of the `dtype` argument of `CrossViT`; `None` is the global one.

    Raises:
        ValueError: If it is not one policy of floating-point numbers for all layers.
    """
    given = keras.config.dtype_policy() if dtype is None else dtype
    try:
        policy = keras.dtype_policies.get(given)
    except (ValueError, TypeError):
        policy = None
    refused = (keras.dtype_policies.DTypePolicyMap, keras.dtype_policies.QuantizedDTypePolicy)
    if (
        not isinstance(policy, keras.DTypePolicy)
        or isinstance(policy, refused)
        or not keras.backend.is_float_dtype(policy.compute_dtype)
    ):
        raise ValueError(
            "`dtype` must be one Keras dtype policy of floating-point numbers for all layers, or "
            f"its name; model.quantize is for others. Received: dtype={dtype!r}"
        )
    return policy


def quantization_mode(model: keras.Model) -> str | None:
    """The mode in which `model.quantize` was called, e.g. "int8"; `None` if it was not."""
    return model.branches["large"].blocks[0][0].mlp.fc1.quantization_mode


def quantize(model: keras.Model, mode: str) -> None:
    """`model.quantize(mode)`, without its warnings and in less time.

    Keras warns of each layer that has nothing to quantise, and collects garbage after each, which
    is slow with TensorFlow's many objects.
    """
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
            model.quantize(mode)
    finally:
        gc.unfreeze()
