"""Which weights of a model are trained."""

import keras

from keras_crossvit.common.checks import check_choice
from keras_crossvit.models.crossvit import CrossViT
from keras_crossvit.models.features import check_crossvit


def freeze(model: CrossViT, stages: int | None = None) -> None:
    """Freezes the first layers of a model, from the embeddings up, and trains all others.

    So another call with fewer stages thaws layers, also those that were frozen by hand; what
    else is to be frozen comes after it. A layer of which only a part is frozen stays as it is.

    Frozen weights are not trained, and neither gradients nor optimizer state are kept for them.
    They stay frozen when the model is saved and loaded (but not in `keras.models.clone_model`,
    which recreates their inner layers); `model.trainable = True` thaws them all. Call it before
    `compile`.

    Args:
        model: A CrossViT.
        stages: Number of stages to freeze after the embeddings (patches, class tokens,
            positions), from 0 to `len(model.stages)`. `None` freezes all but the heads, as for a
            linear probe.

    Raises:
        ValueError: If `model` is not a CrossViT or has no such stages, or nothing would be
            trained.
    """
    check_crossvit(model)
    if stages is None and not model.include_top:
        raise ValueError(
            "`stages` must be a number for a model without heads. Received: stages=None"
        )
    if stages is not None:
        stages = check_choice("stages", stages, range(len(model.stages) + 1))
    first = _first_layers(model, stages)
    if not model.trainable:
        model.trainable = True
    for layer in model.layers:
        if layer.trainable == (layer in first):  # else it would thaw the parts of a trained one
            layer.trainable = layer not in first


def _first_layers(model: CrossViT, stages: int | None) -> list[keras.layers.Layer]:
    if stages is None:
        heads = [branch.head for branch in model.branches.values()]
        return [layer for layer in model.layers if layer not in heads]
    embeddings = [
        layer
        for branch in model.branches.values()
        for layer in (branch.patch_embed, branch.class_token, branch.position_embedding)
        if layer is not None
    ]
    return [*embeddings, *model.stages[:stages]]
