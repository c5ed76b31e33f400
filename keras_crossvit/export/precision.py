"""Copies of a model in the precision that an export needs."""

from typing import Any

from keras_crossvit.models import CrossViT
from keras_crossvit.models.quantization import quantization_mode


def quantized(model: CrossViT) -> CrossViT:
    """A copy of a model after `quantize("int8")`, which quantises its dense layers to 8 bits."""
    copy = _copied(model)
    if quantization_mode(copy) is None:  # otherwise it is already quantised
        copy.quantize("int8")
    return copy


def _copied(model: CrossViT) -> CrossViT:
    """A copy of a model, LoRA's product merged."""
    given = {"classifier_activation": model.classifier_activation}  # which may not be registered
    copy = CrossViT.from_config({**model.get_config(), **given})
    # As files are written and read, layer by layer: so Keras merges LoRA.
    for target, source in zip(copy._flatten_layers(), model._flatten_layers(), strict=True):
        values: dict[str, Any] = {}
        source.save_own_variables(values)
        target.load_own_variables(values)
    return copy
