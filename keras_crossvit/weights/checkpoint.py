"""Reads and writes checkpoints under the published names."""

import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TypeVar

import keras
import numpy as np

from keras_crossvit.common.bicubic import resize_grid
from keras_crossvit.common.files import write_atomically
from keras_crossvit.weights.names import from_torch, named_variables, shorten, to_torch

T = TypeVar("T")  # an array, or a variable

_FIRST_PROJECTION = re.compile(r"patch_embed(\.\d)?\.proj(\.0)?\.weight")  # of the pixels


def load_checkpoint(model: keras.Model, source: str | os.PathLike) -> None:
    """Loads a checkpoint with timm's or the authors' names into a model of this package.

    Position embeddings of another image size are resized by bicubic interpolation, except for
    that of the class token (section 4.1). Nothing is assigned unless everything fits.

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
    assign_state(model, read_checkpoint(source), origin=str(source))


def save_checkpoint(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the weights of `model` as safetensors under timm's names, in float32.

    timm loads the file with `strict=True`. It is written to a temporary file and renamed, so
    that a crash leaves either the old file or the complete new one.

    Args:
        model: A CrossViT of this package.
        path: The file to write; the name ends in `.safetensors`.

    Raises:
        ValueError: If `path` has another ending, or a variable has no name in timm.
    """
    from safetensors.numpy import save_file

    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors. Received: {path}")
    with write_atomically(path) as aside:
        save_file(model_state(model), aside, metadata={"format": "pt"})


def model_state(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights of `model` as `{timm name: float32 array in PyTorch's layout}`."""
    return {
        name: to_torch(keras.ops.convert_to_numpy(variable).astype("float32"))
        for name, variable in named_variables(model).items()
    }


def read_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint file, `{timm name: array in PyTorch's layout}`.

    Raises as `load_checkpoint` does.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`source` must be an existing file. Received: {path}")
    readers = {
        ".safetensors": _read_safetensors,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".bin": _read_torch,
    }
    if path.suffix not in readers:
        allowed = ", ".join(readers)
        raise ValueError(f"`source` must end in one of {allowed}. Received: {path}")
    state = {}
    for name, array in readers[path.suffix](path).items():
        spelled = _timm_spelling(name)
        if spelled in state:
            raise ValueError(
                f"`source` must hold each weight once. Received: {path}, where {name} is another "
                f"name of a weight that it already has, {spelled}"
            )
        state[spelled] = array
    return state


def _timm_spelling(name):
    """The authors' `pos_embed.0` as timm's `pos_embed_0`, without a data-parallel prefix."""
    name = name.removeprefix("module.")
    for token in ("pos_embed", "cls_token"):
        name = name.replace(f"{token}.", f"{token}_")
    return name


def _read_safetensors(path):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(
            f"`source` must be a complete safetensors file. Received: {path}, which cannot be "
            f"read: {error}"
        ) from error


def _read_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"`source` is a PyTorch file, {path}, and reading it needs torch: install it, or pass "
            "a .safetensors file of the same weights"
        ) from error
    try:
        # weights_only: a pickle can contain arbitrary code, which must not run.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for other files
        reason = str(error).partition("\n")[0]
        raise ValueError(
            "`source` must be a complete PyTorch checkpoint that holds only tensors. "
            f"Received: {path}, which cannot be read: {type(error).__name__} {reason}"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    is_state = isinstance(state, dict) and state
    if not is_state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"`source` must hold a state dict of tensors. Received: {path}")
    if unnamed := [key for key in state if not isinstance(key, str)]:
        raise ValueError(
            "`source` must hold a state dict of tensors, whose keys are names. "
            f"Received: {path}, with the keys {shorten(map(repr, unnamed))}"
        )
    return {name: _torch_array(path, name, tensor) for name, tensor in state.items()}


def _torch_array(path, name, tensor):
    """A tensor as an array, float32 if it is of any floating-point type."""
    tensor = tensor.detach()
    try:
        # NumPy has no bfloat16. Other types stay what they are, so that they are refused.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, meta, quantised, ...
        reason = str(error).partition("\n")[0]
        raise ValueError(
            "`source` must hold a state dict of tensors, dense and with their values. "
            f"Received: {path}, where {name} cannot be read: {reason}"
        ) from error


def head_classes(state: Mapping[str, np.ndarray]) -> int | None:
    """Number of classes of a checkpoint's heads, or None if it has no heads."""
    heads = (array for name, array in state.items() if name.startswith("head."))
    return next((len(array) for array in heads if array.ndim), None)


def without_heads(state: Mapping[str, T]) -> dict[str, T]:
    """The entries of `state`, under timm's names, that do not belong to a head."""
    return {name: array for name, array in state.items() if not name.startswith("head.")}


def assign_state(
    model: keras.Model, state: Mapping[str, np.ndarray], origin: str, keep_heads: bool = False
) -> None:
    """Assigns the arrays of `state` to the variables of `model`, either all or none.

    Args:
        model: A CrossViT of this package.
        state: `{timm name: array in PyTorch's layout}`.
        origin: Where the state comes from, for error messages.
        keep_heads: Whether the model's heads stay as they are; `state` then has no heads.

    Raises:
        ValueError: If keys and variables do not correspond one to one, or an array does not hold
            finite numbers of a floating-point type; the message names those that do not.
    """
    variables = named_variables(model)
    if keep_heads:
        variables = without_heads(variables)
    check_finite({name: state[name] for name in variables if name in state}, origin)
    problems = []
    if missing := [name for name in variables if name not in state]:
        problems.append(f"{len(missing)} variables have no key: {shorten(missing)}")
    if unused := [name for name in state if name not in variables]:
        problems.append(f"{len(unused)} keys have no variable: {shorten(unused)}")
    arrays = {}
    for name in variables.keys() & state.keys():
        array = state[name]
        if name.startswith("pos_embed") and array.ndim == 3 and len(array) == 1:
            array = _resize_positions(model, name, array, variables[name], origin)
        if _FIRST_PROJECTION.fullmatch(name) and array.ndim == 4:
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
        variable.assign(arrays[name].astype("float32"))


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
    """A kernel `(C, 3, rows, columns)` for images of other channels, by timm's rule.

    One channel gets the sum of the three; others repeat them, so scaled that the same image in
    all channels gives the same sum.
    """
    if kernel.shape[1] != 3 or channels == 3:
        return kernel
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    repeated = np.tile(kernel, (1, -(-channels // 3), 1, 1))[:, :channels]
    return repeated * (3 / channels)


def _resize_positions(model, name, positions, variable, origin):
    """Position embeddings `(1, 1 + N, C)` resized to the model's patch grid."""
    shape = tuple(variable.shape)
    if positions.shape == shape or positions.shape[2] != shape[2]:
        return positions
    rows, columns = next(
        model.grids[branch]
        for branch, layers in model.branches.items()
        if layers.position_embedding.embedding is variable
    )
    class_tokens = shape[1] - rows * columns  # 1, or 0 in a model without class tokens
    class_position, patches = positions[0, :class_tokens], positions[0, class_tokens:]
    side = math.isqrt(len(patches))
    if side < 1 or side**2 != len(patches):
        raise ValueError(
            "Position embeddings must be of a square grid of patches to be resized. "
            f"Received: {origin}, where {name} has {len(patches)} patches"
        )
    grid = patches.reshape(side, side, -1)
    resized = resize_grid(grid, rows, columns).reshape(rows * columns, -1)
    return np.concatenate([class_position, resized])[None]
