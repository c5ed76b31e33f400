"""Files of weights and models: what they hold, and how they are read."""

import dataclasses
import json
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_crossvit.common.checks import (
    check_grid,
    check_labels,
    check_path,
    expanded,
    first_line,
)
from keras_crossvit.common.registry import NotRegisteredError
from keras_crossvit.weights.names import shorten

Grids: TypeAlias = Mapping[str, tuple[int, int]]  # {"small": (rows, columns), "large": ...}

# In the header of a .safetensors file of this package.
_GRIDS = "patch_grids"
_ARGUMENTS = "model_arguments"
# Those that are read.
_KNOWN = (
    *("channels", "classifier_activation", "config", "include_preprocessing", "inputs"),
    *("labels", "mean", "pooling", "std"),
)
_SHOWN = 200  # characters of a header's entry, in an error message


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Args:
        state: `{timm name: array in PyTorch's layout}`.
        grids: Rows and columns of the patches that the position embeddings belong to; empty if
            the file does not say.
        arguments: Those of `CrossViT` that the weights do not show: `classifier_activation`,
            `config` (as a dictionary), `include_preprocessing`, `inputs`, `labels`, `mean`,
            `pooling` and `std`, and `channels`, those of `input_shape`; empty if the file does not
            say.
    """

    state: Mapping[str, np.ndarray]
    grids: Grids = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def header(grids: Grids, arguments: Mapping[str, Any]) -> dict[str, str]:
    """A .safetensors file's header: PyTorch's layout, and a `Checkpoint`'s grids and arguments."""
    return {
        "format": "pt",
        _GRIDS: json.dumps(dict(grids)),
        _ARGUMENTS: json.dumps(dict(arguments)),
    }


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Reads a `.safetensors` or PyTorch file.

    Raises as `load_checkpoint` does.
    """
    path = expanded(check_path("source", path))
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
    found = readers[path.suffix](path)
    state: dict[str, np.ndarray] = {}
    for name, array in found.state.items():
        spelled = _timm_spelling(name)
        if spelled in state:
            raise ValueError(
                f"`source` must hold each weight once. Received: {path}, where {name} is another "
                f"name of a weight that it already has, {spelled}"
            )
        state[spelled] = array
    return dataclasses.replace(found, state=state)


def load_keras(argument: str, path: str | os.PathLike) -> keras.Model:
    """The model in a `.keras` file that `argument` names.

    Raises:
        NotRegisteredError: If it is made of parts that nobody has registered with this package.
        ValueError: If it is another file, or holds layers of one's own that are not registered.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except NotRegisteredError:
        raise
    except Exception as error:  # Keras raises many types of error for other files
        reason = first_line(error)
        # Deep in a long text, if there are layers of the user's own.
        if unknown := re.search(r"Could not locate \w+ '[^']+'", str(error)):
            reason = f"{unknown[0]}; keras.saving.register_keras_serializable must name it first"
        elif os.path.isfile(path):
            reason = _damage(path) or reason
        raise ValueError(
            f"`{argument}` must be a complete .keras file. Received: {os.fspath(path)}, which "
            f"cannot be read: {reason}"
        ) from error


def _damage(path):
    """What is wrong with a `.keras` file as an archive; Keras may call it "not found"."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except zipfile.BadZipFile:
        return "it is cut off, or a file of another kind"
    except Exception:  # of many types, such as EOFError and zlib.error
        return "it is damaged"
    return f"its {part} is damaged" if part else ""


def _timm_spelling(name):
    """The authors' `pos_embed.0` as timm's `pos_embed_0`, without the prefixes of wrappers."""
    name = re.sub(r"^(module\.|_orig_mod\.)+", "", name)  # data parallel, `torch.compile`
    for token in ("pos_embed", "cls_token"):
        name = name.replace(f"{token}.", f"{token}_")
    return name


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        grids = _parsed(_GRIDS, metadata.get(_GRIDS, "{}"), _grids_of)
        arguments = _parsed(_ARGUMENTS, metadata.get(_ARGUMENTS, "{}"), _arguments_of)
        return Checkpoint(load_file(path), grids, arguments)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`source` must be a complete safetensors file. Received: {path}, which cannot be "
            f"read: {error}"
        ) from error


def _parsed(name, text, parse):
    """An entry of a header; other programs may have written it, so nothing in it is trusted."""
    try:
        return parse(json.loads(text))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise ValueError(f"its {name} are {shown!r}") from error


def _grids_of(sides):
    if None in sides.values():  # which is a grid in an argument
        raise ValueError(f"`{_GRIDS}` must be (rows, columns)")
    return {branch: check_grid(_GRIDS, grid) for branch, grid in sides.items()}


def _arguments_of(values):
    """The arguments that are read, with their types checked before any weight is assigned."""
    known = {name: value for name, value in values.items() if name in _KNOWN}
    for name in ("labels", "mean", "std"):
        given = known.get(name)
        if given is None:
            continue
        if not isinstance(given, list):
            raise ValueError(f"`{name}` must be a list")
        if name == "labels":
            check_labels(given, len(given))
        elif not all(isinstance(number, (int, float)) for number in given):
            raise ValueError(f"`{name}` must be numbers")
    if not isinstance(known.get("classifier_activation"), (str, type(None))):
        raise ValueError("`classifier_activation` must be a name")
    if "config" in known:
        unseen(known["config"])
    return known


def unseen(config: Mapping[str, Any]) -> dict[str, Any]:
    """What weights do not show of a configuration, `dataclasses.asdict` of a `CrossViTConfig`."""
    branches = [branch for branch in ("small", "large") if config[branch] is not None]
    heads = {f"{branch}.num_heads": config[branch]["num_heads"] for branch in branches}
    return {"fusion": config["fusion"], **heads}


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
    return Checkpoint({name: _torch_array(path, name, tensor) for name, tensor in state.items()})


def _torch_array(path, name, tensor):
    """A tensor as an array, float32 if it is of any floating-point type."""
    tensor = tensor.detach()
    try:
        # NumPy has no bfloat16. Other types stay as they are, so that they are refused.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, meta, quantised, ...
        reason = str(error).partition("\n")[0]
        raise ValueError(
            "`source` must hold a state dict of tensors, dense and with their values. "
            f"Received: {path}, where {name} cannot be read: {reason}"
        ) from error
