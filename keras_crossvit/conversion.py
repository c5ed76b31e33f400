"""Checkpoints from one file format to another, whatever the model."""

import math
import pathlib

import keras

from keras_crossvit.models import CrossViT, CrossViTConfig, presets
from keras_crossvit.weights import save_checkpoint
from keras_crossvit.weights.checkpoint import assign_state, head_classes, read_checkpoint
from keras_crossvit.weights.names import named_variables, to_torch

_DESTINATIONS = (".safetensors", ".keras", ".weights.h5")


def convert(source, destination):
    """Writes the weights of one file into another; the preset is found by their shapes.

    Args:
        source: Path of a `.safetensors` or PyTorch (`.pth`, `.pt`, `.bin`) file with timm's or
            the authors' names, or of a `.keras` model of this package.
        destination: Path to write: `.safetensors` (timm's names, that timm loads strictly),
            `.keras` (graph and weights) or `.weights.h5` (weights alone).

    Returns:
        The model that the weights went through.

    Raises:
        ValueError: If a file's kind is not one of these, or no preset has these weights.
        FileNotFoundError: If there is no file `source`.
    """
    source, destination = pathlib.Path(source), pathlib.Path(destination)
    if not destination.name.endswith(_DESTINATIONS):
        raise ValueError(
            f"`destination` must end in {', '.join(_DESTINATIONS)}. Received: {destination}"
        )
    if source.suffix == ".keras" and source.is_file():
        model = keras.saving.load_model(source, compile=False)
    else:
        model = _model_of(read_checkpoint(source), str(source))
    if destination.suffix == ".safetensors":
        save_checkpoint(model, destination)
    elif destination.suffix == ".keras":
        model.save(destination)
    else:
        model.save_weights(destination)
    return model


def _model_of(state, origin):
    """The model of the preset that has these weights, with them."""
    shapes = {name: array.shape for name, array in state.items()}
    for name in presets():
        config = CrossViTConfig.preset(name)
        side = _input_size(config, shapes)
        if side is None:
            continue
        classes = head_classes(state)
        model = CrossViT(
            config,
            weights=None,
            input_shape=(side, side, 3),
            include_top=classes is not None,
            classes=classes or 1000,
        )
        if shapes == {key: _torch_shape(v) for key, v in named_variables(model).items()}:
            assign_state(model, state, origin)
            return model
    raise ValueError(
        f"`source` must hold the weights of one of the presets {', '.join(presets())}. "
        f"Received: {origin}, whose {len(state)} weights are of none of them"
    )


def _input_size(config, shapes):
    """Side of the image that the position embeddings are for; `None` if of another model."""
    branches = {"small": "pos_embed_0", "large": "pos_embed_1"}
    if config.small is None:
        branches = {"large": "pos_embed"}
    for branch, name in branches.items():
        if name not in shapes or shapes[name][2] != config.branches[branch].embed_dim:
            return None
    # The small branch sees the image as it is; a single branch does as well.
    branch, name = next(iter(branches.items()))
    patches = shapes[name][1] - config.class_token
    return math.isqrt(patches) * config.branches[branch].patch_size


def _torch_shape(variable):
    return to_torch(keras.ops.convert_to_numpy(variable)).shape
