"""Which layers of a model are frozen, for its configuration."""

from collections.abc import Collection

import keras

from keras_crossvit.weights.names import path_in


def frozen_layers(model: keras.Model) -> dict[str, list[str]]:
    """The layers that are frozen, and those inside them that are not.

    Returns:
        `{"frozen": paths, "thawed": paths}`, paths within the model, which for its own layers are
        their names, of layers whose `trainable` is another than that of the layer which they are
        in; without "thawed", which version 0.1 does not know, if there are none.
    """
    states = {path_in(model, x): x.trainable for x in model._flatten_layers(include_self=False)}
    states.pop("", None)  # layers without weights may have no path
    frozen: list[str] = []
    thawed: list[str] = []
    for path, trainable in sorted(states.items(), key=lambda item: item[0].count("/")):
        parents = (path[:end] for end in range(len(path), 0, -1) if path[end:][:1] == "/")
        around = next((states[parent] for parent in parents if parent in states), True)
        if trainable != around:
            (thawed if trainable else frozen).append(path)
    return {"frozen": frozen, **({"thawed": thawed} if thawed else {})}


def freeze_again(
    model: keras.Model, frozen: Collection[str], thawed: Collection[str] = ()
) -> None:
    """Freezes the layers of a new model that another's `frozen_layers` named, and no others."""
    for layer in model.layers:
        if layer.trainable != (layer.name not in frozen):
            layer.trainable = layer.name not in frozen
    paths = {path_in(model, x): x for x in model._flatten_layers(include_self=False)}
    for path in sorted(paths, key=lambda path: path.count("/")):  # those around others first
        if path in frozen or path in thawed:
            paths[path].trainable = path in thawed
