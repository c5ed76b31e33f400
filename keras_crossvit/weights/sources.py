"""The `weights` argument of a model: its allowed values, and the files that they stand for."""

import collections
import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Mapping

import keras

from keras_crossvit.common.checks import did_you_mean, expanded, first_line
from keras_crossvit.weights.checkpoint import (
    arguments_of,
    assign_state,
    check_finite,
    compare_arguments,
    head_classes,
    model_state,
)
from keras_crossvit.weights.files import Checkpoint, Grids, load_keras, read_checkpoint

_IMAGENET_CLASSES = 1000
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".weights.h5", ".keras")
# What requests and httpx call a transfer that breaks off. The hub's client keeps what has arrived,
# but in versions 0.30 to 1.12 it does not resume by itself, and in 2.4 not when the connection is
# reset, a `ReadError`.
_BROKEN_OFF = ("ChunkedEncodingError", "ReadError", "RemoteProtocolError")
_TRIES = 5
_WITHOUT_NETWORK = {"weights": "weights=None, or the path of a file", "source": "a folder"}
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name on the hub

logger = logging.getLogger("keras_crossvit")


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Published weights of an architecture.

    Args:
        repository: Their repository on the Hugging Face hub, `owner/name`.
        input_size: Side of the square images that they were trained on, in pixels.
    """

    repository: str
    input_size: int

    @property
    def timm_name(self) -> str:
        """What timm calls the architecture at this size: the repository without owner and tag."""
        return self.repository.partition("/")[2].partition(".")[0]


@dataclasses.dataclass(frozen=True)
class WeightSource:
    """A file with weights, on this machine or on the Hugging Face hub.

    Args:
        origin: What the user passed as `weights`, for messages.
        path: The file, if it is on this machine.
        repository: Otherwise its repository on the hub, `owner/name`.
        input_size: Side of the images that the weights were trained on, in pixels, if they are
            published weights.
        grids: Patch grids of the weights, if they are known and the file does not say.
    """

    origin: str
    path: pathlib.Path | None = None
    repository: str | None = None
    input_size: int | None = None
    grids: Grids = dataclasses.field(default_factory=dict)

    def load_into(self, model: keras.Model, reset_heads: bool = False) -> bool:
        """Loads the weights into `model`, either all or none, after a download if needed.

        Heads are left out if the model has none, and those for ImageNet's 1000 classes also if it
        has another number of classes: its own then keep their initial values, and a warning is
        logged. A model without labels takes those of the file's heads.

        Args:
            model: A CrossViT.
            reset_heads: Whether heads in the weights are left out, whatever their classes.

        Returns:
            Whether the model has heads and keeps their initial values.

        Raises:
            ValueError: If the weights do not fit.
            ConnectionError: If they must be downloaded and the download fails.
        """
        path = self.path or download(str(self.repository), "model.safetensors", self.origin)
        if path.name.endswith(".weights.h5"):
            if reset_heads:
                raise ValueError(
                    "`reset_heads` must be false for a .weights.h5 file, whose weights have no "
                    f"names: save the model as .keras. Received: weights={self.origin!r}"
                )
            self._load_keras_weights(model, path)
            return False
        found = self._read(path)
        heads = [layers.head for layers in model.branches.values() if layers.head is not None]
        wanted = heads[0].units if heads else None
        given = head_classes(found.state)
        if given == wanted and not reset_heads:
            assign_state(model, found.state, self.origin, grids=found.grids)
            compare_arguments(model, found.arguments, self.origin)
            return False
        if heads and given != _IMAGENET_CLASSES and not reset_heads:
            raise ValueError(
                f"`classes` must be {given}, as in the weights, unless reset_heads=True gives the "
                f"model new heads. Received: classes={wanted}, weights={self.origin!r}"
                if given is not None
                else "`reset_heads` must be True for weights without heads, so that the model "
                f"gets new ones. Received: reset_heads=False, weights={self.origin!r}"
            )
        assign_state(model, found.state, self.origin, keep_heads=True, grids=found.grids)
        compare_arguments(model, found.arguments, self.origin, heads=False)
        if heads:
            logger.warning(
                "weights=%r: the %s of %d classes are new and not trained; all other "
                "weights are loaded (%s).",
                self.origin,
                "two heads" if len(heads) == 2 else "weights of the head",
                wanted,
                f"the file's heads are for {given} classes" if given else "the file has no heads",
            )
        return bool(heads)

    def _read(self, path):
        if path.suffix != ".keras":
            found = read_checkpoint(path)
            return dataclasses.replace(found, grids=found.grids or self.grids)
        saved = load_keras("weights", path)
        try:
            state = model_state(saved)
        except ValueError as error:
            raise ValueError(
                "`weights` must be a .keras file of a CrossViT of this package. "
                f"Received: {self.origin!r}, which does not fit: {error}"
            ) from error
        return Checkpoint(state, saved.grids, arguments_of(saved))

    def _load_keras_weights(self, model, path):
        before = [keras.ops.convert_to_numpy(variable) for variable in model.weights]
        try:
            self._load_keras_file(model, path)
        except ValueError:
            # Keras assigns layer by layer, so restore what it has already assigned.
            for variable, value in zip(model.weights, before, strict=True):
                variable.assign(value)
            raise

    def _load_keras_file(self, model, path):
        try:
            model.load_weights(path)
        except Exception as error:  # Keras raises many types
            raise ValueError(
                "`weights` must be a .weights.h5 file of the same architecture, input size and "
                f"classes. Received: {self.origin!r}, which does not fit: {error}"
            ) from error
        if left := _left_over(model, path):
            raise ValueError(
                "`weights` must be a .weights.h5 file of the same architecture, input size and "
                f"classes. Received: {self.origin!r}, which also holds {left} that the model lacks"
            )
        numbers = [v for v in model.weights if keras.backend.is_float_dtype(v.dtype)]
        check_finite({v.path: keras.ops.convert_to_numpy(v) for v in numbers}, self.origin)


def _left_over(model, path):
    """How many arrays of a .weights.h5 file, which Keras reads without a word, are no variables.

    A model without heads may leave out those of the file.
    """
    import h5py

    shapes: collections.Counter[tuple[int, ...]] = collections.Counter()

    def count(name, entry):
        if isinstance(entry, h5py.Dataset) and entry.dtype.kind != "u":  # as seeds are
            shapes[entry.shape] += 1

    with h5py.File(path) as file:
        for name in file.keys() - {"optimizer"}:  # whose variables a file has after training
            file[name].visititems(count)
    shapes -= collections.Counter(tuple(variable.shape) for variable in model.variables)
    if not model.include_top:
        for branch in model.config.branches.values():
            kernels = [shape for shape in shapes if shape[:-1] == (branch.embed_dim,)]
            for kernel in kernels[:1]:
                shapes -= collections.Counter([kernel, kernel[-1:]])
    return sum(shapes.values())


def resolve(
    weights: str | os.PathLike | None,
    preset: str | None = None,
    published: Mapping[str, Mapping[str, PublishedWeights]] | None = None,
) -> WeightSource | None:
    """Finds what the `weights` argument of a model refers to, without downloading it.

    Args:
        weights: The argument of `CrossViT`.
        preset: Name of the model's preset, or `None`.
        published: `{value of weights: {preset: PublishedWeights}}`.

    Returns:
        A `WeightSource`, or None for `weights=None`.

    Raises:
        ValueError: If `weights` is not allowed, or the file does not exist.
    """
    if weights is None:
        return None
    published = published or {}
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(_allowed(weights, published))
    text = os.fspath(weights)
    if text in published:
        found = _published(text, preset, published[text])
        return WeightSource(text, repository=found.repository, input_size=found.input_size)
    if text.startswith("hf://"):
        return WeightSource(text, repository=repository_of("weights", text))
    path = expanded(text)
    if not path.is_file() or not path.name.endswith(_SUFFIXES):
        raise ValueError(_allowed(weights, published))
    return WeightSource(text, path)


def _allowed(weights, published):
    names = ", ".join(f'"{name}"' for name in published)
    return (
        f'`weights` must be None, one of {names}, "hf://owner/name", or the path of an existing '
        f"file that ends in one of {', '.join(_SUFFIXES)}. Received: weights={weights!r}"
        f"{_suggestion(weights, published)}"
    )


def _suggestion(weights, published):
    """The end of a message that says what `weights` may have been meant to be, or ""."""
    if isinstance(weights, str) and not weights.endswith(_SUFFIXES):
        return meant_repository(weights) or did_you_mean(weights, published)
    return did_you_mean(weights, published)


def meant_repository(text: str) -> str:
    """The end of a message that asks whether a repository of the hub was meant, or ""."""
    if not _REPOSITORY.fullmatch(text) or os.path.exists(text):
        return ""
    return f". Did you mean {'hf://' + text!r}?"


def _published(weights, preset, presets):
    """The `PublishedWeights` of a preset; `presets` holds those of all presets that have them."""
    if preset not in presets:
        raise ValueError(
            f'`weights="{weights}"` exists for {", ".join(presets)}; for any other '
            "architecture `weights` must be None or a file. Received: "
            + (f"the architecture {preset}" if preset else "an architecture that is no preset")
        )
    return presets[preset]


def repository_of(argument: str, text: str, form: str = "hf://owner/name") -> str:
    """The `owner/name` in what was given as `argument`.

    Raises:
        ValueError: If it has another form, or the hub allows no such name.
    """
    from huggingface_hub.utils import validate_repo_id

    name, reason = text.removeprefix(form.removesuffix("owner/name")), ""
    if name.count("/") == 1 and all(name.split("/")):
        try:
            validate_repo_id(name)
            return name
        except ValueError as error:
            reason = f": {first_line(error)}"
    raise ValueError(
        f'`{argument}` must have the form "{form}". Received: {argument}={text!r}{reason}'
    )


def download(repository: str, name: str, origin: str, argument: str = "weights") -> pathlib.Path:
    """The path of a file in a repository on the Hugging Face hub, downloaded if not cached.

    `huggingface_hub` caches and resumes downloads, and respects `HF_HOME`, `HF_ENDPOINT` and
    `HF_HUB_OFFLINE`.

    Args:
        repository: `owner/name`.
        name: The file's.
        origin: What the user passed, for messages.
        argument: As what.

    Raises:
        ConnectionError: If it is neither cached nor can be downloaded.
    """
    import huggingface_hub

    tries_left = _TRIES
    while True:
        tries_left -= 1
        try:
            return pathlib.Path(huggingface_hub.hf_hub_download(repository, name))
        except Exception as error:  # from the hub, HTTP or the system
            if type(error).__name__ in _BROKEN_OFF and tries_left:
                continue  # from where it broke off
            raise ConnectionError(
                f"`{argument}={origin!r}` could not be loaded: {repository} is not in the cache "
                "of huggingface_hub and cannot be downloaded. Allowed without a network: "
                f"{_WITHOUT_NETWORK[argument]}. Received: "
                f"{type(error).__name__}: {error}"
            ) from error
