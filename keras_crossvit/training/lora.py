"""LoRA on the attention projections, with Keras' own `Dense.enable_lora`."""

from collections.abc import Iterator

import keras

from keras_crossvit.layers.parts import kernel_with_lora
from keras_crossvit.models import CrossViT


def enable_attention_lora(model: CrossViT, rank: int) -> None:
    """Makes only the norms, the heads and low-rank changes of the attention projections trainable.

    Args:
        model: A built CrossViT.
        rank: Rank of the changes, positive.
    """
    for projection in _projections(model):
        projection.enable_lora(rank)
    for variable in model.trainable_variables:
        parts = variable.path.split("/")
        trained = "norm" in parts[-2] or parts[0].endswith("_head") or "lora" in parts[-1]
        variable.trainable = trained


def copy_weights(source: CrossViT, target: CrossViT) -> None:
    """Copies the weights of a model, LoRA's product merged, to the same model without LoRA."""
    adapted = [layer for layer in _projections(source) if layer.lora_enabled]
    merged = {f"{layer.path}/kernel": kernel_with_lora(layer) for layer in adapted}
    plain = [v for v in source.weights if not v.path.split("/")[-1].startswith("lora_")]
    # In order, not by path: Keras numbers unnamed layers differently in each model.
    for variable, value in zip(target.weights, plain, strict=True):
        variable.assign(keras.ops.convert_to_numpy(merged.get(value.path, value)))


def _projections(model: CrossViT) -> Iterator[keras.layers.Dense]:
    """The dense layers of all attention, those of the encoders first."""
    for layers in model.branches.values():
        for block in (block for stage in layers.blocks for block in stage):
            yield from block.attention.projections
    for stage in model.stages if model.config.small is not None else ():
        for attention in stage.fuse.attentions:
            yield from attention.projections
