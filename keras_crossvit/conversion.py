"""Converts checkpoints from one file format to another."""

import math
import os
import pathlib

import keras

from keras_crossvit.common.checks import check_local
from keras_crossvit.models import CrossViT, CrossViTConfig, presets
from keras_crossvit.weights import save_checkpoint
from keras_crossvit.weights.checkpoint import assign_state, head_classes, read_checkpoint
from keras_crossvit.weights.names import named_variables, to_torch

_DESTINATIONS = (".safetensors", ".keras", ".weights.h5")


def convert(source: str | os.PathLike, destination: str | os.PathLike) -> keras.Model:
    """Writes the weights of one file to another; their shapes tell which preset they are of.

    Args:
        source: Path of a `.safetensors` or PyTorch (`.pth`, `.pt`, `.bin`) file with timm's or
            the authors' names, or of a `.keras` model of this package.
        destination: The file to write: `.safetensors` (timm's names; timm loads it with
            `strict=True`), `.keras` (model and weights) or `.weights.h5` (only the weights).

    Returns:
        The model with these weights.

    Raises:
        ValueError: If a file has another format, or no preset has these weights.
        FileNotFoundError: If `source` does not exist.
    """
    source, destination = pathlib.Path(source), check_local("destination", destination)
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
    """The model of the preset that fits these weights, with the weights loaded."""
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
        f"Received: {origin}, whose {len(state)} weights fit none of them"
    )


def _input_size(config, shapes):
    """Side of the image that fits the position embeddings; `None` if they do not fit `config`."""
    branches = {"small": "pos_embed_0", "large": "pos_embed_1"}
    if config.small is None:
        branches = {"large": "pos_embed"}
    for branch, name in branches.items():
        width = config.branches[branch].embed_dim
        if name not in shapes or len(shapes[name]) != 3 or shapes[name][2] != width:
            return None
    # The first branch sees the image without a resize.
    branch, name = next(iter(branches.items()))
    patches = shapes[name][1] - config.class_token
    return math.isqrt(patches) * config.branches[branch].patch_size if patches > 0 else None


def _torch_shape(variable):
    return to_torch(keras.ops.convert_to_numpy(variable)).shape
