"""A folder that holds a model and says what it is: for this package, for timm, for the hub."""

import dataclasses
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, cast

import keras
import numpy as np

from keras_crossvit.common.checks import (
    check_folder,
    check_path,
    check_reading,
    expanded,
    first_line,
)
from keras_crossvit.common.files import write_json, write_text
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.models.card import is_card, write_card
from keras_crossvit.models.config import CrossViTConfig
from keras_crossvit.models.crossvit import CrossViT
from keras_crossvit.models.inputs import has_layers_before
from keras_crossvit.models.space import write_space
from keras_crossvit.models.timm_config import (
    arguments_of_timm,
    sizes_of_timm,
    timm_config,
)
from keras_crossvit.weights.checkpoint import head_classes, model_state, save_checkpoint
from keras_crossvit.weights.files import load_keras
from keras_crossvit.weights.sources import (
    WeightSource,
    download,
    meant_repository,
    repository_of,
    resolve,
)

_logger = logging.getLogger("keras_crossvit")
_OURS = "keras_crossvit"  # the part of config.json that timm does not read
_VERSION = 1  # of that part
_ARGUMENTS = (
    *("include_top", "pooling", "classes", "classifier_activation", "include_preprocessing"),
    *("input_shape", "drop_rate", "mean", "std", "inputs", "name", "labels"),
)


def save_pretrained(
    model: CrossViT,
    folder: str | os.PathLike[str],
    *,
    crop_ratio: float | None = None,
    details: Mapping[str, Any] | None = None,
    space: bool = False,
) -> None:
    """See `CrossViT.save_pretrained`."""
    if (check_folder("folder", folder) / "model.keras").is_file():
        raise ValueError(
            "`folder` must not be a run's, whose model.keras the commands would go on to read. "
            f"Received: folder={os.fspath(folder)!r}"
        )
    write_folder(model, folder, crop_ratio=crop_ratio, details=details, space=space)


def write_folder(
    model: CrossViT,
    folder: str | os.PathLike[str],
    *,
    crop_ratio: float | None = None,
    details: Mapping[str, Any] | None = None,
    space: bool = False,
) -> None:
    """`CrossViT.save_pretrained`, also into the folder of the run that trained the model."""
    if space and not model.include_top:
        raise ValueError(
            "`space` must be False for a model without a top, for which there is no page. "
            "Received: space=True"
        )
    if has_layers_before(model):
        raise ValueError(
            "`model` must not be built on an `input_tensor`, whose layers have no place in the "
            f"folder. Received: {model.name!r}"
        )
    # What is wrong is said before anything is written.
    state = model_state(model)
    folder = check_folder("folder", folder)
    details = _checked_details(details)
    readme = folder / "README.md"
    if space and readme.is_file() and not is_card(readme):
        raise ValueError(
            "`folder` must have no README.md other than a model card, which begins as a Space's, "
            f"with space=True. Received: {readme}"
        )
    _config_before(folder / "config.json")
    _reading_to_write(model, crop_ratio)
    folder.mkdir(parents=True, exist_ok=True)
    classes = head_classes(state)
    # First, as the only file large enough to fail: the others would describe older weights.
    save_checkpoint(model, folder / "model.safetensors")
    describe(model, folder, crop_ratio=crop_ratio, details=details, classes=classes, space=space)
    if space:
        write_space(folder)


def describe(
    model: CrossViT,
    folder: pathlib.Path,
    *,
    crop_ratio: float | None,
    details: Mapping[str, Any],
    classes: int | None,
    space: bool = False,
) -> None:
    """Writes `config.json`, whose other keys stay, `labels.txt` and the model card."""
    path = folder / "config.json"
    before = _config_before(path)
    ratio, reading = _reading_to_write(model, crop_ratio)
    if before.get("crop_ratio") is not None:  # as a run records it, which is read first
        reading["crop_ratio"] = ratio
    timm = timm_config(model, classes or 0, ratio)
    write_json(path, {**before, **reading, **timm, _OURS: _own(model)})
    if model.labels is None:
        (folder / "labels.txt").unlink(missing_ok=True)
    else:
        write_text(folder / "labels.txt", "".join(f"{label}\n" for label in model.labels))
    write_card(folder / "README.md", model, ratio, timm["architecture"], details, space)


def _checked_details(details):
    details = {} if details is None else details
    if not isinstance(details, Mapping):
        raise ValueError(f"`details` must be a dictionary or None. Received: details={details!r}")
    return details


def _reading_to_write(model, crop_ratio):
    """The crop ratio, and what else of `model.reading` is known."""
    reading = check_reading(model.reading)
    known = reading.pop("crop_ratio", None)
    size = model.images["large"].shape[1:3]
    return crop_ratio_for(size, known if crop_ratio is None else crop_ratio), reading


def _config_before(path):
    """What a `config.json` already holds, except for what describes the model that was there."""
    if not path.is_file():
        return {}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise ValueError(
            f"`folder` must have an object in its config.json, if it has one. Received: {path}"
        )
    others = ("label_names", "label_descriptions", "exif_orientation")
    return {key: before[key] for key in before if key not in others}


def from_pretrained(source: str | os.PathLike[str], **changes: Any) -> CrossViT:
    """The model in a folder that `save_pretrained` or timm has written, or in a hub repository.

    Args:
        source: The folder, e.g. of a run, or `"hf://owner/name"`, e.g.
            `"hf://timm/crossvit_15_dagger_240.in1k"`, which is downloaded once.
        **changes: Arguments of `CrossViT` in place of the folder's, e.g. `input_shape`, or
            `classes` with `reset_heads=True`.

    Returns:
        The model with its weights and its labels.

    Raises:
        ValueError: If `source` is not such a folder, is of a later version, or does not fit
            `changes`.
        ConnectionError: If it must be downloaded and cannot be.
    """
    text = check_path("source", source)
    found = read_description(text)
    own = _OURS in found
    try:
        arguments = _own_arguments(found, text) if own else arguments_of_timm(found, text)
        config, size = arguments.pop("config"), arguments["input_shape"][:2]
        seen = config.branch_sizes(*size) if own else sizes_of_timm(found, config, size)
        reading = _reading_of(found, text)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "`source` must have a config.json as this package or timm writes it. "
            f"Received: {text}, whose values cannot be read: {type(error).__name__}: {error}"
        ) from error
    known = changes.keys() & {"config", "weights"}
    if known:
        raise ValueError(
            "`changes` must be arguments of CrossViT other than config and weights, which the "
            f"folder has. Received: {', '.join(sorted(known))}"
        )
    if "classes" in changes or "labels" in changes:
        arguments.update(labels=None, include_top=True)
    if changes.get("input_tensor") is not None and "input_shape" not in changes:
        changes["input_shape"] = tuple(changes["input_tensor"].shape[1:])
    if not changes.keys() & {"mean", "std"}:
        _fit_normalization(arguments, changes)
    arguments.update(changes)
    if isinstance(arguments.get("classifier_activation"), dict):
        arguments["classifier_activation"] = _function(arguments["classifier_activation"], text)
    file = _weights_of(text)
    model = CrossViT(config, weights=None, **arguments)
    if seen != config.branch_sizes(*size) and "input_shape" not in changes:
        _logger.warning(
            "%s: of images of %d x %d pixels timm's branches see %s, and drop what is left beside "
            "whole patches; this model resizes to %s, and so answers differently",
            *(text, *size, seen, config.branch_sizes(*size)),
        )
    file = dataclasses.replace(file, grids=config.grids_of(seen))
    model.heads_left_out = file.load_into(model, changes.get("reset_heads", False))
    if model.images["large"].shape[1:3] != tuple(size):  # to which the crop belongs
        reading.pop("crop_ratio", None)
    model.reading = reading
    return model


def _weights_of(origin: str) -> WeightSource:
    """The weights that a config.json describes."""
    weights: list[str | pathlib.Path] = [origin]
    if not origin.startswith("hf://"):
        # timm writes the second by default; reading it needs torch.
        folder = expanded(origin)
        files = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
        weights = [file for file in files if file.is_file()]
    if not weights:
        raise ValueError(
            "`source` must be a folder with model.safetensors beside its config.json. "
            f"Received: source={origin!r}, which has none"
        )
    return cast(WeightSource, resolve(weights[0]))


def _reading_of(found, origin):
    """How images are read, as a run or timm recorded it."""
    crop = found.get("crop_ratio")
    crop = (found.get("pretrained_cfg") or {}).get("crop_pct") if crop is None else crop
    try:
        return check_reading(
            {"crop_ratio": crop, "exif_orientation": found.get("exif_orientation")}
        )
    except ValueError as error:
        raise ValueError(
            f"`source` must hold allowed values in its config.json. Received: {origin}: {error}"
        ) from error


def _fit_normalization(arguments, changes):
    """Leaves out a folder's `mean` and `std` if `changes` has images with other channels."""
    shape = changes.get("input_shape")
    if np.size(shape) != 3 or shape[2] == arguments["input_shape"][2]:
        return
    preprocessing = {**arguments, **changes}.get("include_preprocessing", True)
    allowed = {1, 3} if shape[2] == 1 and preprocessing else {shape[2]}
    if len(arguments["mean"] or ()) not in allowed:
        arguments.update(mean=None, std=None)


def _function(serialized, origin):
    """The user's own function that `config.json` names as the activation."""
    try:
        found = keras.activations.deserialize(serialized)
    except TypeError:  # of a function that Keras does not know; up to 3.15 it returns its name
        found = serialized["config"]
    if not callable(found):
        raise ValueError(
            "`classifier_activation` must be given, or be registered with "
            f"keras.saving.register_keras_serializable. Received: {origin}, where it is the "
            f"function {found!r}"
        )
    return found


def push_to_hub(
    model: CrossViT, name: str, *, private: bool = False, space: bool = False, **options: Any
) -> str:
    """See `CrossViT.push_to_hub`."""
    import huggingface_hub

    repository_of("name", name, "owner/name")
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, space=space, **options)
        api = huggingface_hub.HfApi()
        kind, sdk = ("space", "gradio") if space else ("model", None)
        try:
            api.create_repo(name, private=private, exist_ok=True, repo_type=kind, space_sdk=sdk)
            uploaded = api.upload_folder(repo_id=name, folder_path=folder, repo_type=kind)
        except (TypeError, ValueError):  # of this program
            raise
        except Exception as error:  # of the hub, of HTTP or of the system
            raise ConnectionError(
                f"`name={name!r}` could not be uploaded to the Hugging Face hub. Received: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        return str(uploaded)


def _own(model):
    arguments = model.get_config()
    return {
        "version": _VERSION,
        "config": dataclasses.asdict(model.config),
        **{name: arguments[name] for name in _ARGUMENTS},
    }


def read_description(origin: str) -> dict[str, Any]:
    """What `config.json` says about a folder, or about a hub repository, downloaded once.

    Raises as `from_pretrained` does.
    """
    if origin.startswith("hf://"):
        path = download(repository_of("source", origin), "config.json", origin, "source")
    else:
        path = expanded(check_path("source", origin)) / "config.json"
    if not path.is_file():
        raise ValueError(
            "`source` must be a folder with config.json and model.safetensors, or "
            f'"hf://owner/name". Received: source={origin!r}{meant_repository(origin)}'
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"`source` must hold a whole config.json. Received: {path}, which cannot be read: "
            f"{error}"
        ) from error
    if not isinstance(found, dict) or (_OURS not in found and "architecture" not in found):
        ours = isinstance(found, dict) and "output_dir" in found  # a run of this package
        if ours and not path.with_name("model.keras").exists():
            raise ValueError(
                "`source` must hold a model, as the folder of a finished run does. "
                f"Received: {path.parent}, which holds none"
            )
        raise ValueError(
            "`source` must hold a config.json of this package or of timm; of a run whose folder "
            "has no model.safetensors load model.keras. "
            f"Received: {path}, without an architecture"
        )
    return found


def load_crossvit(argument: str, path: pathlib.Path) -> CrossViT:
    """The model of this package in a `.keras` file that `argument` names.

    Raises:
        NotRegisteredError: If it is made of parts that are not registered.
        ValueError: If it is another file, or holds another model.
    """
    model = load_keras(argument, path)
    if not isinstance(model, CrossViT):
        raise ValueError(
            f"`{argument}` must hold a CrossViT of this package. "
            f"Received: {path}, with a {type(model).__name__} {model.name!r}"
        )
    return model


def _own_arguments(found, origin):
    arguments = dict(found[_OURS])
    version = arguments.pop("version", None)
    if version != _VERSION:
        raise ValueError(
            f"`source` must be of version {_VERSION}; a later keras_crossvit may read it. "
            f"Received: {origin}, of version {version}"
        )
    unknown = arguments.keys() - {"config", *_ARGUMENTS}
    if unknown:
        raise ValueError(
            "`source` must have no fields in config.json that this version does not know. "
            f"Received: {origin}, with {', '.join(sorted(unknown))}"
        )
    try:
        arguments["config"] = CrossViTConfig.from_dict(arguments["config"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"`source` must describe a CrossViTConfig. Received: {origin}, where {error}"
        ) from error
    for flag in ("include_top", "include_preprocessing"):
        arguments[flag] = bool(arguments[flag])  # older versions kept 1 as it was
    return arguments
