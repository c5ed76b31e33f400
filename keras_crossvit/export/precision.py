"""Copies of a model in the precision that an export needs."""

import keras
from keras import ops

from keras_crossvit.layers.parts import kernel_with_lora
from keras_crossvit.models import CrossViT
from keras_crossvit.models.quantization import quantization_mode

_MIXED = {"mixed_bfloat16", "mixed_float16"}


def in_float32(model: CrossViT) -> CrossViT:
    """A model that computes in float32, as converters require.

    Returns:
        The model itself or, if it is in mixed precision, a copy with the same weights, which are
        float32 there too.

    Raises:
        ValueError: If part of the model has another policy, such as a quantised one.
    """
    policies = _other_policies(model)
    if policies and policies <= _MIXED:
        model = _copied(model, dtype="float32")
        policies = _other_policies(model)  # layers before an `input_tensor` keep theirs
    if policies:
        raise ValueError(
            "`model` must compute in float32: build it, and any layers before it, with "
            "dtype='float32', and load its weights. "
            f"Received: layers with the policies {sorted(policies)}"
        )
    return model


def _other_policies(model):
    """The names of the policies in a model that are not float32.

    Inputs compute nothing, and have the policy that was the global one.
    """
    parts = model._flatten_layers(include_self=False)
    parts = [part for part in parts if not isinstance(part, keras.layers.InputLayer)]
    return {part.dtype_policy.name for part in parts} - {"float32"}


def quantized(model: CrossViT) -> CrossViT:
    """A copy of a model after `quantize("int8")`, its dense layers in 8 bits."""
    copy = _copied(model)
    if quantization_mode(copy) is None:  # otherwise it is already quantised
        copy.quantize("int8")
    return copy


def _copied(model, **changes):
    """A copy of a model, LoRA's product merged, with `changes` in its configuration."""
    given = {"classifier_activation": model.classifier_activation}  # which may not be registered
    copy = CrossViT.from_config({**model.get_config(), **given, **changes})
    # As files are written and read, layer by layer: so Keras merges LoRA.
    for target, source in zip(copy._flatten_layers(), model._flatten_layers(), strict=True):
        values = {}
        source.save_own_variables(values)
        # By way of NumPy, since on JAX two variables must not share an array.
        target.load_own_variables({k: ops.convert_to_numpy(v) for k, v in values.items()})
        if getattr(source, "lora_enabled", False) and source.dtype_policy.name in _MIXED:
            target.kernel.assign(kernel_with_lora(source))
    return copy
