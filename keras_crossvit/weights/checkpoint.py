"""Reading and writing checkpoints under the published names."""

import math
import pathlib

import keras
import numpy as np

from keras_crossvit.common.bicubic import resize_grid
from keras_crossvit.common.files import write_atomically
from keras_crossvit.weights.names import from_torch, named_variables, shorten, to_torch


def load_checkpoint(model, source):
    """Loads a checkpoint of timm or of the authors into a model of this package.

    Position embeddings of another image size are resized, bicubic, class token apart
    (section 4.1). Nothing is assigned unless everything fits.

    Args:
        model: A CrossViT of this package.
        source: Path of a `.safetensors` or PyTorch (`.pth`, `.pt`, `.bin`) file with timm's
            or the authors' names.

    Raises:
        ValueError: If the file is no checkpoint, or naming the keys and variables that do
            not correspond one to one.
        FileNotFoundError: If there is no such file.
        ImportError: If the file is PyTorch's and torch is not installed.
    """
    assign_state(model, read_checkpoint(source), origin=str(source))


def save_checkpoint(model, path):
    """Writes the weights of `model` as safetensors under timm's names, in float32.

    timm loads the file with `strict=True`. It is written aside and renamed, so that a
    crash leaves either the old file or the whole new one.

    Args:
        model: A CrossViT of this package.
        path: Where to write, ending in `.safetensors`.

    Raises:
        ValueError: If `path` ends otherwise, or a variable has no name in timm.
    """
    from safetensors.numpy import save_file

    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors. Received: {path}")
    with write_atomically(path) as aside:
        save_file(model_state(model), aside, metadata={"format": "pt"})


def model_state(model):
    """The weights of `model` as `{timm name: float32 array in PyTorch's layout}`."""
    return {
        name: to_torch(keras.ops.convert_to_numpy(variable).astype("float32"))
        for name, variable in named_variables(model).items()
    }


def read_checkpoint(path):
    """The arrays of a checkpoint file, `{timm name: array in PyTorch's layout}`.

    Raises:
        As `load_checkpoint`.
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
                f"spelling of a weight that it has already, {spelled}"
            )
        state[spelled] = array
    return state


def _timm_spelling(name):
    """The authors' `pos_embed.0` as timm's `pos_embed_0`; data-parallel prefixes removed."""
    name = name.removeprefix("module.")
    for token in ("pos_embed", "cls_token"):
        name = name.replace(f"{token}.", f"{token}_")
    return name


def _read_safetensors(path):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"`source` must be a whole safetensors file. Received: {path}, which cannot be "
            f"read: {error}"
        ) from error


def _read_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"`source` is a PyTorch file, {path}, which needs torch to be read: install it, "
            "or pass the .safetensors file of the same weights"
        ) from error
    try:
        # weights_only: a pickle may hold any code, and must not run it.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for files that are not its own
        reason = str(error).partition("\n")[0]
        raise ValueError(
            "`source` must be a whole PyTorch checkpoint that holds tensors alone. "
            f"Received: {path}, which cannot be read: {type(error).__name__} {reason}"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    is_state = isinstance(state, dict) and state
    if not is_state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"`source` must hold a state dict of tensors. Received: {path}")
    return {name: tensor.float().numpy() for name, tensor in state.items()}


def head_classes(state):
    """Number of classes of a checkpoint's heads, or None if it has no heads."""
    return next((len(array) for name, array in state.items() if name.startswith("head.")), None)


def without_heads(state):
    return {name: array for name, array in state.items() if not name.startswith("head.")}


def assign_state(model, state, origin, keep_heads=False):
    """Assigns the arrays of `state` to the variables of `model`, all or none.

    Args:
        model: A CrossViT of this package.
        state: `{timm name: array in PyTorch's layout}`.
        origin: What the state was read from, for messages.
        keep_heads: Whether the model's heads may stay as they are.

    Raises:
        ValueError: Naming the keys and variables that do not correspond one to one.
    """
    variables = named_variables(model)
    if keep_heads:
        variables = without_heads(variables)
    problems = []
    if missing := [name for name in variables if name not in state]:
        problems.append(f"{len(missing)} variables have no key: {shorten(missing)}")
    if unused := [name for name in state if name not in variables]:
        problems.append(f"{len(unused)} keys have no variable: {shorten(unused)}")
    arrays = {}
    for name in variables.keys() & state.keys():
        array = state[name]
        if name.startswith("pos_embed") and array.ndim == 3:
            array = _resize_positions(model, name, array, variables[name])
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


def _resize_positions(model, name, positions, variable):
    """Position embeddings `(1, 1 + N, C)` for the model's own grid of patches."""
    shape = tuple(variable.shape)
    if positions.shape == shape or positions.shape[2] != shape[2]:
        return positions
    rows, columns = next(
        model.grids[branch]
        for branch, layers in model.branches.items()
        if layers.position_embedding.embedding is variable
    )
    class_tokens = shape[1] - rows * columns  # one, or none in a model without them
    class_position, patches = positions[0, :class_tokens], positions[0, class_tokens:]
    side = math.isqrt(len(patches))
    if side**2 != len(patches):
        raise ValueError(
            "Position embeddings can be resized from a square grid of patches only. "
            f"Received: {name} with {len(patches)} patches"
        )
    grid = patches.reshape(side, side, -1)
    resized = resize_grid(grid, rows, columns).reshape(rows * columns, -1)
    return np.concatenate([class_position, resized])[None]
