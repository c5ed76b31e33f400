"""What the page shows of a model, as plain functions."""

import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from keras_crossvit import visualize
from keras_crossvit.common.checks import check_positive_int, escaped
from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.models import CrossViT, feature_names
from keras_crossvit.models.answers import class_names
from keras_crossvit.prediction import FileClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_FILE_MIB = 32  # a JPEG of formats.MAX_PIXELS takes 8 to 33
_BATCH_SIZE = 32
_DPI = 140
_LEAST_SIDE = 240  # of an image on the page, in pixels


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says about an image.

    Args:
        pixels: `(H, W, channels)`, 0..255, as the model sees the image, an array for each image
            that it takes.
        images: The model's input, `(1, H, W, channels)`, likewise.
        scores: `{"model": {class: score}}`, the highest first; with two branches, "small" and
            "large", too: what each branch's own head says.
        classes: Numbers of the classes of `scores["model"]`.
        attention: The result of `visualize.cross_attention`, or `None` for a model without it.
    """

    pixels: tuple[np.ndarray, ...]
    images: tuple[np.ndarray, ...]
    scores: dict[str, dict[str, float]]
    classes: tuple[int, ...]
    attention: Any


class Answerer:
    """Answers for the page; reads files as `crossvit predict` does.

    Args:
        model: A classifier of this package.
        top_k: Number of classes to name; positive, at most all.
        crop_ratio: As in `classify_files`.
        exif_orientation: As in `classify_files`.

    Raises:
        ValueError: If an argument is not allowed.
    """

    def __init__(
        self,
        model: CrossViT,
        *,
        top_k: int = 5,
        crop_ratio: float | None = None,
        exif_orientation: bool = True,
    ) -> None:
        self._classifier = FileClassifier(
            model,
            branches=len(getattr(model, "branches", ())) > 1,
            crop_ratio=crop_ratio,
            exif_orientation=exif_orientation,
        )
        self.model = model
        self.top_k = min(check_positive_int("top_k", top_k), model.classes)
        self.names = distinct_names(class_names(model))
        self.why_no_attention = _why_no_attention(model)

    def answer(self, *files: str | os.PathLike[str]) -> Answer:
        """The model's answer to a file or, if it takes pairs, to two.

        Raises:
            ValueError: If a file cannot be read; the message is a sentence that names it.
        """
        pixels = [self._read(file) for file in files]
        scores = self._classifier.scores(*pixels)
        images = tuple(self._classifier.prepare(x) for x in pixels)
        found = {name: self._best(values[0]) for name, values in scores.items()}
        attention = None
        if not self.why_no_attention:
            attention = visualize.cross_attention(self.model, images[0])
        return Answer(
            tuple(x[0] for x in pixels),
            images,
            {
                name: {self.names[index]: float(scores[name][0, index]) for index in indices}
                for name, indices in found.items()
            },
            tuple(found["model"]),
            attention,
        )

    def attention_picture(
        self, answer: Answer, stage: int, branches: Sequence[str] = ("small", "large")
    ) -> PIL.Image.Image:
        """Which patches the branches' class tokens read in a stage, over the image."""
        return _picture(
            visualize.plot_cross_attention(
                answer.pixels[0], answer.attention, stages=[stage], branches=branches
            )
        )

    def evidence_picture(self, answer: Answer, index: int) -> PIL.Image.Image:
        """Grad-CAM of the class with this number; not for a model that takes pairs."""
        images = answer.images[0]
        maps = visualize.gradcam(self.model, images, classes=index)
        scores = visualize.class_scores(self.model, images, classes=index)
        named = [(self.names[index], score) for _, score in scores]
        return _picture(visualize.plot_gradcam(answer.pixels[0], maps, scores=named))

    def gallery(
        self, files: Sequence[str | os.PathLike[str]]
    ) -> Iterator[tuple[list[tuple[np.ndarray, str]], list[str]]]:
        """Images with their top class and its score, and what cannot be read.

        Args:
            files: The files, one image each.

        Yields:
            After each batch, `[(pixels (H, W, 3), caption), ...]` and a sentence for each file
            that cannot be read; both grow.
        """
        shown: list[tuple[np.ndarray, str]] = []
        problems: list[str] = []
        for start in range(0, len(files), _BATCH_SIZE):
            part = [pathlib.Path(file) for file in files[start : start + _BATCH_SIZE]]
            problems += filter(None, map(_too_large, part))
            small = [file for file in part if not _too_large(file)]
            if small:
                self._show(small, shown, problems)
            yield shown, problems

    def _show(self, files, shown, problems):
        """Adds a batch to what `gallery` yields."""
        pixels, faults = self._classifier.read(files)
        scores = self._classifier.scores(pixels)["model"]
        for file, image, fault, row in zip(files, pixels, faults, scores, strict=True):
            if fault:
                problems.append(_unreadable(file, fault))
                continue
            first = int(row.argmax())
            caption = f"{self.names[first]}, {row[first]:.0%} ({escaped(file.name)})"
            shown.append((to_show(image), caption))

    def _read(self, file):
        """The pixels of a file, `(1, H, W, channels)`."""
        file = pathlib.Path(file)
        if too_large := _too_large(file):
            raise ValueError(too_large)
        pixels, (fault,) = self._classifier.read([file])
        if fault:
            raise ValueError(_unreadable(file, fault))
        return pixels

    def _best(self, scores):
        return [int(index) for index in np.argsort(-scores, kind="stable")[: self.top_k]]


def to_show(pixels: np.ndarray) -> np.ndarray:
    """Pixels `(H, W, 1 or 3)` as uint8 RGB; a small image is enlarged by a whole factor."""
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype("uint8")
    times = math.ceil(_LEAST_SIDE / min(rgb.shape[:2]))
    return rgb.repeat(times, axis=0).repeat(times, axis=1)


def _why_no_attention(model):
    """Why cross-attention cannot be drawn; "" if it can."""
    if model.takes_pairs:
        return "The model takes an image for each branch: what it looks at is not drawn."
    if len(model.branches) < 2:
        return "The model has one branch: there are no patches of another scale to read."
    if not any(name.endswith("/cross_attention") for name in feature_names(model)):
        return (
            f"The model's fusion is {model.config.fusion!r}: its class tokens do not read the "
            "other branch's patches by cross-attention."
        )
    return ""


def _too_large(file):
    """A sentence if a file is larger than the page takes, otherwise ""."""
    if file.is_file() and file.stat().st_size > MAX_FILE_MIB * 2**20:
        name = escaped(file.name)
        return f"{name} is larger than {MAX_FILE_MIB} MiB, the most that the page takes."
    return ""


def _unreadable(file, fault):
    return f"{escaped(file.name or str(file))} cannot be read: {fault}"


def _picture(figure: "Figure") -> PIL.Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return PIL.Image.open(file)
