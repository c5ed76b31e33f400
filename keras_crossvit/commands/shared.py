"""What the commands share: finding a model and its data, and errors in one line."""

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_crossvit.common.checks import check_path, expanded, in_one_line
from keras_crossvit.common.registry import NotRegisteredError
from keras_crossvit.models import CrossViT, CrossViTConfig, from_pretrained, presets
from keras_crossvit.models.pretrained import load_crossvit, read_description

if TYPE_CHECKING:
    from keras_crossvit.data.sources import Source

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # `from_pretrained` reads one of them

# What the commands read in a config.json: the types that a value may have, and what they are.
_TEXT = (str,), "a string"
_TYPES = {
    "crop_ratio": ((int, float), "a number"),
    "exif_orientation": ((bool,), "true or false"),
    "dataset": _TEXT,
    "data_dir": _TEXT,
    "train_split": _TEXT,
    "validation_split": ((str, int, float), "a string or a number"),
    "pretrained_cfg": ((dict,), "an object"),
}


@dataclasses.dataclass
class FoundModel:
    """A model, and what is known about how it was trained.

    Args:
        model: The model.
        values: The values of its run, as `TrainConfig` names them, or what a `config.json` of
            `save_pretrained` says; empty for a file other than a run's `model.keras` and
            `best.keras`.
    """

    model: CrossViT
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    def value(self, name: str, given: Any, default: Any = None) -> Any:
        """An argument as given, or else the run's value, or else the default."""
        found = given if given is not None else self.values.get(name)
        return default if found is None else found

    def reading(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """`crop_ratio` and `exif_orientation`: the arguments', the run's, or else the model's."""
        own = self.model.reading
        turned = own.get("exif_orientation", True)
        return {
            "crop_ratio": self.value("crop_ratio", arguments.crop_ratio, own.get("crop_ratio")),
            "exif_orientation": self.value("exif_orientation", arguments.exif_orientation, turned),
        }


def parser_of(
    description: str | None, command: str, classes: str = "1000"
) -> argparse.ArgumentParser:
    """An argument parser with the arguments that name a model.

    Args:
        description: What the help begins with.
        command: What the help says is done with the model.
        classes: What the help says is the default of `--classes`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="MODEL",
        help=f"what to {command}: the folder of a run, a folder of save_pretrained, a .keras "
        "file, or hf://OWNER/NAME",
    )
    add = parser.add_argument
    add("--model", metavar="NAME", help="a preset, with --weights, instead of MODEL")
    add("--weights", help="imagenet, imagenet-408, a file or hf://OWNER/NAME")
    add("--classes", type=int, help=f"number of classes in --weights; by default {classes}")
    add_recipe(parser)
    return parser


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names a file to run first."""
    parser.add_argument(
        "--recipe",
        metavar="FILE.py",
        help="a Python file to run first, which registers what the model is made of: the run's "
        "own recipe",
    )


def run_recipe(arguments: argparse.Namespace) -> None:
    """Runs the file that the argument of `add_recipe` names, if any.

    Raises:
        ValueError: If it cannot be run.
    """
    if arguments.recipe is not None:
        # Imported here, since training pulls in much that the other commands do without.
        from keras_crossvit.training.recipes import run_file

        run_file(expanded(arguments.recipe))


def find_model(arguments: argparse.Namespace) -> FoundModel:
    """The model that the arguments of `parser_of` name.

    Raises:
        ValueError: If they name none, or two, or untrained heads are to answer, or the file of
            `--recipe` cannot be run.
    """
    if (arguments.source is None) == (arguments.model is None):
        raise ValueError(
            "`MODEL` must be a run's folder, a .keras file or hf://OWNER/NAME, or --model and "
            f"--weights be given. Received: MODEL={arguments.source}, --model {arguments.model}"
        )
    if arguments.source is not None:
        for name in ("weights", "classes", "input_size"):
            if getattr(arguments, name, None) is not None:
                option = "--" + name.replace("_", "-")
                raise ValueError(
                    f"`{option}` must be given with --model alone; MODEL has its own. Received: "
                    f"MODEL={arguments.source}, {option} {getattr(arguments, name)}"
                )
    run_recipe(arguments)
    if arguments.source is None:
        if arguments.weights is None:
            raise ValueError("`--weights` must be given with --model. Received: none")
        shape = getattr(arguments, "input_size", None)
        labels, classes = None, arguments.classes
        if classes is None:
            labels = getattr(arguments, "labels", None)
            classes = len(labels or ()) or 1000
        model = CrossViT(
            CrossViTConfig.preset(arguments.model),
            weights=arguments.weights,
            classes=classes,
            input_shape=None if shape is None else (shape, shape, 3),
        )
        of_features = getattr(arguments, "knn", False) or getattr(arguments, "linear_probe", False)
        if model.heads_left_out and not of_features:
            wrong, kind = "`--classes` must be 1000", "classes"
            if labels:
                wrong, kind = "`--labels` must have 1000 lines", "labels"
            raise ValueError(
                f"{wrong}, as in --weights: heads for others would be untrained. Received: "
                f"--weights {arguments.weights} for {model.classes} {kind}"
            )
        return FoundModel(model)
    try:
        return _open(arguments.source)
    except NotRegisteredError as error:
        raise ValueError(
            "`MODEL` must be made of registered parts; a design of your own must be registered "
            f"first: --recipe FILE.py. Received: {arguments.source}, where {error}"
        ) from error


def _open(source):
    path = expanded(check_path("MODEL", source))
    if source.startswith("hf://"):
        return FoundModel(_from_pretrained(source), _checked(read_description(source), source))
    if path.is_file():
        of_run = path.name in ("model.keras", "best.keras")
        values = _read_config(path.parent / "config.json") if of_run else {}
        return FoundModel(load_crossvit("MODEL", path), values)
    if not path.is_dir():
        near = f". Did you mean --model {source}?" if source in presets() else ""
        raise ValueError(
            "`MODEL` must be an existing folder or file, or hf://OWNER/NAME. "
            f"Received: {source}{near}"
        )
    values = _read_config(path / "config.json")
    if (path / "model.keras").is_file():
        return FoundModel(load_crossvit("MODEL", path / "model.keras"), values)
    if not any((path / name).is_file() for name in _WEIGHTS):
        raise ValueError(
            "`MODEL` must be a folder that holds a model: model.keras, as a finished run has "
            f"it, or config.json with model.safetensors. Received: {source}, which holds none"
        )
    return FoundModel(_from_pretrained(path), values)


def _checked(values, origin):
    """What a `config.json` says, after the types of what is read of it were checked."""
    for name, (types, meaning) in _TYPES.items():
        value = values.get(name)
        if value is not None and type(value) not in types:
            raise ValueError(
                f"`{name}` must be {meaning} or null in a config.json. "
                f"Received: {origin}, with {name}={value!r}"
            )
    return values


def _from_pretrained(source):
    try:
        return from_pretrained(source)
    except NotRegisteredError:
        raise
    except ValueError as error:  # there the argument is `source`, here it is MODEL
        message = str(error).replace("`source`", "`MODEL`").replace("source=", "MODEL=")
        raise ValueError(message) from error


def _read_config(path):
    """What a run recorded about itself, or nothing."""
    if not path.is_file():
        return {}
    try:
        values = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`MODEL` must be a folder with a whole config.json. Received: {path}, which cannot "
            f"be read: {error}"
        ) from error
    return _checked(values, path)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how images are read."""
    crop = "by default the run's, or the published one"
    parser.add_argument("--crop-ratio", type=float, help=crop)
    parser.add_argument(
        "--exif-orientation",
        action=argparse.BooleanOptionalAction,
        help="turn images upright as their EXIF says; by default as in the run, or yes",
    )


def add_data(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Adds the arguments that name labelled images.

    Args:
        parser: The parser.
        purpose: What the help says they are for.
    """
    add = parser.add_argument
    add("--dataset", help=f"a TensorFlow dataset, folder:PATH or csv:FILE, {purpose}")
    add("--data-dir", help="where tensorflow-datasets keeps its data")
    add(
        "--split",
        type=_split,
        help="by default the run's, or validation, val, valid, dev or test; 0.2: a share of train",
    )


def _split(text):
    """The name of a split, or the share that is held out of the training split."""
    try:
        share = float(text)
    except ValueError:
        return text
    return share if 0 < share < 1 else text  # a folder may be called 2024


def data_values(arguments: argparse.Namespace, run: dict[str, Any]) -> dict[str, Any]:
    """`dataset`, `data_dir` and `split`, as the arguments of `add_data` say, or else the run."""
    dataset = arguments.dataset or run.get("dataset")
    of_run = run if dataset == run.get("dataset") else {}
    split = of_run.get("validation_split") if arguments.split is None else arguments.split
    data_dir = arguments.data_dir or of_run.get("data_dir")
    return {"dataset": dataset, "data_dir": data_dir, "split": split}


def find_data(arguments: argparse.Namespace, run: dict[str, Any], with_training: bool) -> "Source":
    """The data that the arguments of `add_data` name, or else those of a run.

    Args:
        arguments: The arguments. The run's own data are held out as in the run.
        run: `FoundModel.values`.
        with_training: Whether the training split is needed.

    Raises:
        ValueError: If they name none, or as from `open_source`.
    """
    from keras_crossvit.data.sources import open_source  # which most commands do without

    dataset, data_dir, split = data_values(arguments, run).values()
    if dataset is None:
        raise ValueError(
            "`--dataset` must be given, unless MODEL is a run's folder or model. Received: none"
        )
    train = run.get("train_split", "train") if dataset == run.get("dataset") else "train"
    held_out_of_train = not isinstance(split, str | None)
    try:
        return open_source(
            dataset,
            data_dir,
            train_split=train if with_training or held_out_of_train else None,
            validation_split=split,
        )
    except FileNotFoundError as error:
        if arguments.dataset is not None or arguments.data_dir is not None:
            raise
        raise FileNotFoundError(
            f"{error}, as the run has it; --dataset or --data-dir says where its data are now"
        ) from error
    except ValueError as error:  # there the argument is `validation_split`, here it is --split
        message = str(error).replace("`validation_split`", "`--split`")
        if arguments.dataset is None and message.startswith("`dataset` must be the name"):
            hint = "; a source of your own must be registered first: --recipe FILE.py. Received:"
            message = message.replace(". Received:", hint, 1)
        raise ValueError(message.replace("validation_split=", "--split ")) from error


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """A context that ends the process with one line if an argument or a file is wrong.

    It shows the package's own messages, but only errors from TensorFlow and its data sets.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(in_one_line(error))
