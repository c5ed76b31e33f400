"""Which layers of a model are frozen, for its configuration."""

from collections.abc import Collection

import keras


def frozen_layers(model: keras.Model) -> list[str]:
    """The names of frozen layers; of those inside layers that are not frozen, the paths."""
    frozen = [layer.name for layer in model.layers if not layer.trainable]
    for layer in model.layers:
        # A layer comes before those inside it, which need no paths of their own if it is frozen.
        for inner in layer._flatten_layers() if layer.trainable else ():
            path = inner.path or ""
            parents = {path[:end] for end, x in enumerate(path) if x == "/"}
            if path and not inner.trainable and parents.isdisjoint(frozen):
                frozen.append(path)
    return frozen


def freeze_again(model: keras.Model, frozen: Collection[str]) -> None:
    """Freezes the layers of a new model that another's `frozen_layers` named, and no others."""
    for layer in model.layers:
        if layer.trainable != (layer.name not in frozen):
            layer.trainable = layer.name not in frozen
    for layer in model._flatten_layers():
        if layer.path in frozen:
            layer.trainable = False
