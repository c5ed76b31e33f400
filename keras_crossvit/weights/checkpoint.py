"""Loads and saves a model's weights under the published names."""

import logging
import math
import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from keras_crossvit.common.bicubic import resize_grid
from keras_crossvit.common.checks import check_local
from keras_crossvit.common.files import write_atomically
from keras_crossvit.weights.files import Grids, header, read_checkpoint, unseen
from keras_crossvit.weights.names import from_torch, named_variables, shorten, to_torch

T = TypeVar("T")  # an array, or a variable

FIRST_PROJECTION = re.compile(r"patch_embed(\.\d)?\.proj(\.0)?\.weight")  # of the pixels

logger = logging.getLogger("keras_crossvit")


def load_checkpoint(model: keras.Model, source: str | os.PathLike) -> None:
    """Loads a checkpoint with timm's or the authors' names into a model of this package.

    Position embeddings of another image size are resized by bicubic interpolation, except for
    that of the class token (section 4.1). A file that `save_checkpoint` wrote records their grid
    of patches; in any other file it is taken to be square if the number of patches is a square.
    Nothing is assigned unless everything fits. A model without labels takes those of the file.

    Args:
        model: A CrossViT of this package.
        source: Path of a `.safetensors` or PyTorch (`.pth`, `.pt`, `.bin`) file.

    Raises:
        ValueError: If the file is not a checkpoint, its keys and the model's variables do not
            correspond one to one, or a weight is not a finite number of a floating-point type;
            the message names the file and the keys.
        FileNotFoundError: If the file does not exist.
        ImportError: If it is a PyTorch file and torch is not installed.
    """
    found = read_checkpoint(source)
    assign_state(model, found.state, origin=str(source), grids=found.grids)
    compare_arguments(model, found.arguments, str(source))


def save_checkpoint(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the weights of `model` as safetensors under timm's names, in float32.

    timm loads the file with `strict=True`. Its header holds the grids of patches and those
    arguments of the model that weights do not show; timm reads neither. It is written to a
    temporary file and renamed, so that a crash leaves either the old file or the complete new one.

    Args:
        model: A CrossViT of this package.
        path: The file to write; the name ends in `.safetensors`.

    Raises:
        ValueError: If `path` has another ending or is in a bucket, or a variable has no name or
            shares it.
        OSError: If it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = check_local("path", path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors. Received: {path}")
    with write_atomically(path) as aside:
        try:
            save_file(model_state(model), aside, metadata=header(model.grids, arguments_of(model)))
        except SafetensorError as error:  # of the disk
            raise OSError(f"{path} cannot be written: {error}") from error


def arguments_of(model: keras.Model) -> dict[str, Any]:
    """The arguments of a model that its weights do not show, as in `Checkpoint`."""
    arguments = {name: getattr(model, name) for name in ("labels", "mean", "std")}
    config = model.get_config()
    for name in ("config", "include_preprocessing", "inputs", "pooling"):
        arguments[name] = config[name]
    arguments["channels"] = config["input_shape"][2]  # the kernels of one may be for three
    activation = config["classifier_activation"]  # Keras' functions by their names
    if activation is None or isinstance(activation, str):  # others are the user's own functions
        arguments["classifier_activation"] = activation
    return arguments


def compare_arguments(
    model: keras.Model, arguments: Mapping[str, Any], origin: str, heads: bool = True
) -> None:
    """Gives a model without labels those of its weights, and warns where arguments differ.

    Args:
        model: A CrossViT of this package, whose weights come from `origin`.
        arguments: As in `Checkpoint`.
        origin: Where they come from, for the warning.
        heads: Whether the heads, if the model has any, come from there as well.
    """
    own = arguments_of(model)
    heads = heads and model.include_top
    labels = arguments.get("labels") or ()
    if heads and own["labels"] is None and len(labels) == model.classes:
        own["labels"] = model.labels = tuple(labels)
    compared = ["mean", "std"] if model.include_preprocessing else []
    compared += ["labels"] if heads else []
    for name in compared:
        given, ours = arguments.get(name), own[name] or ()
        # If the lengths differ, they are for images with other channels, or for other classes.
        if given is None or len(given) != len(ours) or list(given) == list(ours):
            continue
        _warn(origin, name, _shortened(given), _shortened(ours))
    theirs, ours = (_activation(values, model.classes) for values in (arguments, own))
    if heads and theirs and ours and theirs != ours:
        _warn(origin, "classifier_activation", theirs, ours)
    given, own = (unseen(values["config"]) for values in ({**own, **arguments}, own))
    for name in (name for name in own if name in given and given[name] != own[name]):
        _warn(origin, name, given[name], own[name])


def _warn(origin, name, given, own):
    logger.warning(
        "%s: the weights are of a model with %s=%s. This one has %s, and answers otherwise.",
        *(origin, name, given, own),
    )


def _activation(arguments, classes):
    """What makes the logits probabilities; `None` if nothing does, or if it is not known."""
    activation = arguments.get("classifier_activation")
    if activation == "softmax" and classes == 1:
        return "sigmoid"  # as `CrossViT` takes it
    return None if activation == "linear" else activation


def _shortened(values):
    return f"[{', '.join(map(str, values[:5]))}{', ...' if len(values) > 5 else ''}]"


def model_state(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights of `model` as `{timm name: float32 array in PyTorch's layout}`."""
    return {
        name: to_torch(keras.ops.convert_to_numpy(variable).astype("float32"))
        for name, variable in named_variables(model).items()
    }


def head_classes(state: Mapping[str, np.ndarray]) -> int | None:
    """Number of classes of a checkpoint's heads, or None if it has no heads."""
    heads = (array for name, array in state.items() if name.startswith("head."))
    return next((len(array) for array in heads if array.ndim), None)


def without_heads(state: Mapping[str, T]) -> dict[str, T]:
    """The entries of `state`, under timm's names, that do not belong to a head."""
    return {name: array for name, array in state.items() if not name.startswith("head.")}


def assign_state(
    model: keras.Model,
    state: Mapping[str, np.ndarray],
    origin: str,
    keep_heads: bool = False,
    grids: Grids | None = None,
) -> None:
    """Assigns the arrays of `state` to the variables of `model`, either all or none.

    Args:
        model: A CrossViT of this package.
        state: `{timm name: array in PyTorch's layout}`.
        origin: Where the state comes from, for messages.
        keep_heads: Whether the model's heads stay as they are, and those of `state` are left out.
        grids: Patch grids of `state`, if they are known.

    Raises:
        ValueError: If keys and variables do not correspond one to one, or an array does not hold
            finite numbers of a floating-point type; the message names those that do not.
    """
    variables = named_variables(model)
    if keep_heads:
        variables, state = without_heads(variables), without_heads(state)
    check_finite({name: state[name] for name in variables if name in state}, origin)
    problems = []
    if missing := [name for name in variables if name not in state]:
        problems.append(f"{len(missing)} variables have no key: {shorten(missing)}")
    if unused := [name for name in state if name not in variables]:
        problems.append(f"{len(unused)} keys have no variable: {shorten(unused)}")
    arrays = {}
    for name in (name for name in variables if name in state):
        array = state[name].astype("float32", copy=False)  # else sums would be rounded to 16 bits
        if name.startswith("pos_embed") and array.ndim == 3 and len(array) == 1:
            array = _resize_positions(model, name, array, variables[name], grids or {}, origin)
        if FIRST_PROJECTION.fullmatch(name) and array.ndim == 4:
            array = _adapt_channels(array, variables[name].shape[2])
        arrays[name] = from_torch(array)
    wrong = [
        f"{name} {arrays[name].shape} for {tuple(variables[name].shape)}"
        for name in variables
        if name in arrays and arrays[name].shape != tuple(variables[name].shape)
    ]
    if wrong:
        problems.append(f"{len(wrong)} shapes differ: {shorten(wrong)}")
    if problems:
        raise ValueError(
            f"The weights must be of the same architecture as the model {model.name!r}. "
            f"Received: {origin}, where {'; '.join(problems)}"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def check_finite(weights: Mapping[str, np.ndarray], origin: str) -> None:
    """Checks that weights are finite numbers of a floating-point type, also in float32.

    Args:
        weights: `{name: array}`.
        origin: Where they come from, for error messages.

    Raises:
        ValueError: If some are not; the message names them.
    """
    wrong = []
    for name, array in weights.items():
        if not keras.backend.is_float_dtype(array.dtype.name):
            wrong.append(f"{name} ({array.dtype.name})")
            continue
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype("float32", copy=False)).all()
        if not finite:
            wrong.append(f"{name} (NaN, infinite or beyond float32)")
    if wrong:
        raise ValueError(
            "The weights must be finite numbers of a floating-point type. "
            f"Received: {origin}, where {len(wrong)} are not: {shorten(wrong)}"
        )


def _adapt_channels(kernel, channels):
    """A kernel `(C, 3, rows, columns)` for images with other channels, by timm's rule.

    One channel gets the sum of the three; other numbers of channels repeat them, scaled so that
    the same image in all channels gives the same sum.
    """
    if kernel.shape[1] != 3 or channels == 3:
        return kernel
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    repeated = np.tile(kernel, (1, -(-channels // 3), 1, 1))[:, :channels]
    return repeated * (3 / channels)


def _resize_positions(model, name, positions, variable, grids, origin):
    """Position embeddings `(1, 1 + N, C)` resized to the model's patch grid."""
    shape = tuple(variable.shape)
    if positions.shape[2] != shape[2]:
        return positions
    branch = next(
        branch
        for branch, layers in model.branches.items()
        if layers.position_embedding.embedding is variable
    )
    rows, columns = model.grids[branch]
    class_tokens = shape[1] - rows * columns  # 1, or 0 in a model without class tokens
    class_position, patches = positions[0, :class_tokens], positions[0, class_tokens:]
    found = f"{origin}, where {name} has {len(patches)} patches"
    grid = grids.get(branch) or _guess_grid(len(patches), (rows, columns), found)
    if math.prod(grid) != len(patches):
        raise ValueError(
            "Position embeddings must be of the grid of patches that the file or its folder says, "
            f"{grid[0]} x {grid[1]}. Received: {found}"
        )
    if grid == (rows, columns):
        return positions
    resized = resize_grid(patches.reshape(*grid, -1), rows, columns).reshape(rows * columns, -1)
    return np.concatenate([class_position, resized])[None]


def _guess_grid(patches, wanted, found):
    """The grid of this many patches in a file that does not give it; `wanted` is the model's."""
    side = math.isqrt(patches)
    if side < 1 or (side**2 != patches and patches != math.prod(wanted)):
        raise ValueError(
            "Position embeddings must be of a square grid of patches to be resized, unless the "
            f"file says of which they are, as those of `save_checkpoint` do. Received: {found}"
        )
    if side**2 != patches:
        return wanted
    if patches == math.prod(wanted) and wanted != (side, side):
        logger.warning(
            "%s: taken for a square of %d x %d, and resized to the model's %d x %d, since the "
            "file does not say of which grid they are",
            *(found, side, side, *wanted),
        )
    return side, side
