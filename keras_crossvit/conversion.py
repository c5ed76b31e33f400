"""Converts checkpoints from one file format to another."""

import dataclasses
import logging
import math
import os

import keras
import numpy as np

from keras_crossvit.common.checks import check_local, check_path, expanded
from keras_crossvit.common.files import write_atomically
from keras_crossvit.common.pixels import MEAN, STD
from keras_crossvit.models import CrossViT, CrossViTConfig, presets
from keras_crossvit.models.inputs import has_layers_before
from keras_crossvit.models.pretrained import load_crossvit
from keras_crossvit.weights import save_checkpoint
from keras_crossvit.weights.checkpoint import FIRST_PROJECTION, assign_state, head_classes
from keras_crossvit.weights.files import read_checkpoint, unseen
from keras_crossvit.weights.names import from_torch, named_variables

logger = logging.getLogger("keras_crossvit")
_DESTINATIONS = (".safetensors", ".keras", ".weights.h5")


def convert(source: str | os.PathLike, destination: str | os.PathLike) -> keras.Model:
    """Writes the weights of one file to another; their shapes tell which preset they belong to.

    Args:
        source: Path of a `.safetensors` or PyTorch (`.pth`, `.pt`, `.bin`) file with timm's or
            the authors' names, or of a `.keras` model of this package.
            A `.safetensors` file of this package records the patch grids, channels, activation,
            labels, mean and deviation, whether the model normalises, the pooling, and whether the
            inputs are separate. Weights from any other file must be for square images, and get
            a softmax, no labels, and ImageNet's mean and deviation (their averages for one
            channel).
        destination: The file to write: `.safetensors` (timm's names; timm loads it with
            `strict=True`), `.keras` (model and weights) or `.weights.h5` (only the weights).

    Returns:
        The model with these weights.

    Raises:
        ValueError: If a file is in another format, or no preset has these weights.
        FileNotFoundError: If `source` does not exist.
    """
    source = expanded(check_path("source", source))
    destination = check_local("destination", destination)
    if not destination.name.endswith(_DESTINATIONS):
        raise ValueError(
            f"`destination` must end in {', '.join(_DESTINATIONS)}. Received: {destination}"
        )
    if source.suffix == ".keras" and source.is_file():
        model = load_crossvit("source", source)
    else:
        model = _model_of(read_checkpoint(source), str(source))
    if destination.suffix == ".safetensors":
        if has_layers_before(model):
            logger.warning("%s leaves out the layers before the model", destination)
        save_checkpoint(model, destination)
        return model
    with write_atomically(destination) as aside:
        if destination.suffix == ".keras":
            model.save(aside)
        else:
            model.save_weights(aside)
    return model


def _model_of(checkpoint, origin):
    """The model of the preset that fits these weights, with the weights loaded."""
    state = checkpoint.state
    shapes = {name: array.shape for name, array in state.items()}
    wanted = {name: from_torch(array).shape for name, array in state.items()}
    saved_arguments = dict(checkpoint.arguments)
    saved_config = saved_arguments.pop("config", None)
    channels = saved_arguments.pop("channels", None) or _channels(shapes)
    for name in presets():
        config = CrossViTConfig.preset(name)
        if saved_config and unseen(saved_config) != unseen(dataclasses.asdict(config)):
            continue
        size = _input_size(config, shapes, checkpoint.grids)
        if size is None:
            continue
        classes = head_classes(state)
        # Without these, one channel would be normalised as three.
        grey = {"mean": [np.mean(MEAN)], "std": [np.mean(STD)]} if channels == 1 else {}
        arguments = {**grey, **saved_arguments}
        if classes is None:
            arguments.pop("labels", None)  # of heads that are not in the file
        model = CrossViT(
            config,
            weights=None,
            input_shape=(*size, channels),
            include_top=classes is not None,
            classes=classes or 1000,
            **arguments,
        )
        if wanted == {key: tuple(v.shape) for key, v in named_variables(model).items()}:
            assign_state(model, state, origin, grids=checkpoint.grids)
            return model
    raise ValueError(
        f"`source` must hold the weights of one of the presets {', '.join(presets())}, for "
        "square images unless the file says of which grid its patches are. "
        f"Received: {origin}, whose {len(state)} weights fit none of them"
    )


def _input_size(config, shapes, grids):
    """Sides of the image that fit the position embeddings; `None` if they do not fit `config`."""
    names = {"small": "pos_embed_0", "large": "pos_embed_1"}
    if config.small is None:
        names = {"large": "pos_embed"}
    for branch, name in names.items():
        width = config.branches[branch].embed_dim
        if name not in shapes or len(shapes[name]) != 3 or shapes[name][2] != width:
            return None
    patches = {}
    for branch, name in names.items():
        side = math.isqrt(max(shapes[name][1] - config.class_token, 0))
        patches[branch] = grids.get(branch, (side, side))
    rows, columns = ({branch: sides[axis] for branch, sides in patches.items()} for axis in (0, 1))
    size = _side(config, rows), _side(config, columns)
    return None if None in size else size


def _side(config, patches):
    """Side of the image that the branches split into `{branch: number}` patches, or `None`.

    Of several sides, the one that the first branch sees without a resize, or the nearest to it.
    """
    sizes = [branch.patch_size for branch in config.branches.values()]
    exact = next(iter(patches.values())) * sizes[0]
    for side in sorted(range(exact - sizes[0], exact + sizes[0]), key=lambda x: abs(x - exact)):
        if side < max(sizes):
            continue
        grids = config.grids(side, side)
        if all(grids[branch][0] == number for branch, number in patches.items()):
            return side
    return None


def _channels(shapes):
    """Channels of the images: those of the first kernel that sees pixels, or 3."""
    kernels = (shape for name, shape in shapes.items() if FIRST_PROJECTION.fullmatch(name))
    return next((shape[1] for shape in kernels if len(shape) == 4), 3)
