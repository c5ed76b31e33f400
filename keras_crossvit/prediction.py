"""Image files in, a table of classes out."""

import collections
import csv
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_crossvit.common.checks import check_local, check_positive_int, expanded
from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.common.files import write_json, write_text
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.data.images import read_images, why_unreadable
from keras_crossvit.data.sources.folder import IMAGE_SUFFIXES, is_image, log_left_out, suffix_of
from keras_crossvit.data.sources.storage import files_below
from keras_crossvit.export.checks import check_classifier
from keras_crossvit.models import CrossViT, branch_logits
from keras_crossvit.models.answers import check_finite, class_names, gives_logits, probabilities
from keras_crossvit.models.inputs import image_shape
from keras_crossvit.models.preprocessing import as_model_takes

_BRANCHES = ("small", "large")  # in the order of a table's columns


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Files as given, and from folders all files that are named like images, sorted.

    Hidden files and folders are left out, as in training. Links to files that are gone count as
    files, which then cannot be read. The log says how many files of a folder are images of
    formats that are not read.

    Raises:
        ValueError: If `paths` is a single path, one does not exist, or there is no image.
        OSError: If a folder cannot be read.
    """
    if isinstance(paths, str | os.PathLike):
        raise ValueError(f"`paths` must be a list of paths. Received: paths={str(paths)!r}")
    given = [*map(expanded, paths)]
    found: list[pathlib.Path] = []
    for path in given:
        if path.is_dir():
            inside = [*files_below(str(path))]
            found.extend(sorted(path / name for name in inside if is_image(name)))
            others = (suffix_of(name) for name in inside if not is_image(name))
            log_left_out(str(path), collections.Counter(others))
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"`PATH` must be an existing file or folder. Received: {path}")
    if not found:
        raise ValueError(
            f"`PATH` must hold files that end in {', '.join(IMAGE_SUFFIXES)}. "
            f"Received: {', '.join(map(str, given))}"
        )
    return found


def classify_files(
    model: CrossViT,
    files: Sequence[str | os.PathLike[str]],
    *,
    top_k: int = 5,
    batch_size: int = 32,
    branches: bool = False,
    crop_ratio: float | None = None,
    exif_orientation: bool = True,
) -> list[dict[str, Any]]:
    """Classifies image files, read as for evaluation.

    Args:
        model: A classifier of this package.
        files: The files, JPEG, PNG, GIF, BMP or WebP.
        top_k: Number of most probable classes to name, positive; at most all.
        batch_size: Images that are classified together.
        branches: Whether each branch's own head answers too.
        crop_ratio: As in `evaluation_transform`; `None` for the one published for that size.
        exif_orientation: As in `decode`.

    Returns:
        A dictionary for each file: `file`, `classes` and `scores`, the highest first; with
        `branches` also `small_class`, `small_score`, `large_class`, `large_score`; or, for a file
        that cannot be read, `file` and `error`.

    Raises:
        ValueError: If an argument is not allowed, or the model answers with NaN.
    """
    if isinstance(files, str | os.PathLike):
        raise ValueError(f"`files` must be a list of files. Received: files={str(files)!r}")
    check_classifier(model, files=True)
    check_positive_int("batch_size", batch_size)
    check_positive_int("top_k", top_k)
    classifier = FileClassifier(
        model, branches=branches, crop_ratio=crop_ratio, exif_orientation=exif_orientation
    )
    names = distinct_names(class_names(model))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(files), batch_size):
        part = files[start : start + batch_size]
        pixels, faults = classifier.read(part)
        answers = classifier.scores(pixels)
        for row, (file, fault) in enumerate(zip(part, faults, strict=True)):
            if fault:
                rows.append({"file": os.fspath(file), "error": fault})
                continue
            scores = {name: values[row] for name, values in answers.items()}
            rows.append({"file": os.fspath(file), **_best(scores, names, top_k)})
    return rows


class FileClassifier:
    """Reads image files as for evaluation and classifies them, in two steps.

    Args:
        model: A classifier of this package, including one with `inputs="separate"`.
        branches: As in `classify_files`.
        crop_ratio: As in `classify_files`.
        exif_orientation: As in `classify_files`.

    Raises:
        ValueError: If an argument is not allowed.
    """

    def __init__(
        self,
        model: CrossViT,
        *,
        branches: bool = False,
        crop_ratio: float | None = None,
        exif_orientation: bool = True,
    ) -> None:
        check_classifier(model, pairs=True, files=True)
        self.model = model
        self._heads = branch_logits(model) if branches else None
        shape = image_shape(model)
        ratio = crop_ratio_for(shape, crop_ratio)

        @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string)])
        def read(contents):
            return read_images(contents, shape, ratio, exif_orientation)

        self._read = read

    def read(self, files: Sequence[str | os.PathLike[str]]) -> tuple[np.ndarray, list[str]]:
        """The pixels of files, and why any of them cannot be read.

        Args:
            files: The files, JPEG, PNG, GIF, BMP or WebP.

        Returns:
            float32 `(N, H, W, channels)`, pixels in 0..255, 0 for a file that cannot be read;
            and for each file why it cannot be read, "" if it can.
        """
        contents, faults = zip(*(_contents(file) for file in files), strict=True)
        pixels, readable = self._read(tf.constant(contents))
        known = zip(contents, faults, readable.numpy(), strict=True)
        reasons = ["" if good else fault or why_unreadable(held) for held, fault, good in known]
        return pixels.numpy(), reasons

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels in 0..255 as the model takes them: as they are, or normalised."""
        return keras.ops.convert_to_numpy(as_model_takes(self.model, pixels))

    def scores(self, *pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities.

        Args:
            *pixels: What `read` returns; for `inputs="separate"` the small branch's and the
                large branch's.

        Returns:
            `{"model": (B, classes)}`, with `branches` also "small" and "large".
        """
        images = [self.prepare(x) for x in pixels]
        x = images if self.model.takes_pairs else images[0]
        scores = check_finite(self.model.predict_on_batch(x))
        if gives_logits(self.model):
            scores = probabilities(self.model, scores)
        answers = {"model": np.asarray(scores)}
        if self._heads is not None:
            logits = self._heads.predict_on_batch(x)
            answers |= {name: probabilities(self.model, logits[name]) for name in _BRANCHES}
        return answers


def _contents(file):
    """The bytes of a file, and why they cannot be read."""
    try:
        return expanded(file).read_bytes(), ""
    except OSError as error:
        return b"", error.strerror or str(error)


def _best(scores, names, top_k):
    order = np.argsort(-scores["model"], kind="stable")[:top_k]
    found = {
        "classes": [names[index] for index in order],
        "scores": [float(scores["model"][index]) for index in order],
    }
    for name in [branch for branch in _BRANCHES if branch in scores]:
        first = int(scores[name].argmax())
        found[f"{name}_class"], found[f"{name}_score"] = names[first], float(scores[name][first])
    return found


def check_table(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a table that `write_table` can write, as far as is known beforehand.

    Raises:
        ValueError: If it ends in neither .csv nor .json, is a folder, or is in a place where
            nothing can be written.
    """
    path = check_local("--output", path)
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"`--output` must end in .csv or .json. Received: {path}")
    if path.is_dir():
        raise ValueError(f"`--output` must be a file. Received: {path}, which is a folder")
    above = path.absolute().parents
    # Of a link to nothing no folder can be made; a drive that Windows does not have is nowhere.
    place = next((parent for parent in above if os.path.lexists(parent)), path.parent)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(
            "`--output` must be in a folder that can be made and written. "
            f"Received: {path}, in {place}"
        )
    return path


def write_table(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Writes the rows of `classify_files` as CSV, a column for each class and score, or as JSON.

    Missing folders on the path to the file are made.

    Raises:
        ValueError: As from `check_table`.
    """
    path = check_table(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        write_json(path, rows)
        return
    flat = [_flat(row) for row in rows]
    columns = dict.fromkeys(name for row in flat for name in row)
    columns.pop("error", None)
    text = io.StringIO()
    # Until version 3.13 Python puts no quotes around "\r" by itself, though it may end a row.
    ends = any("\r" in str(value) for row in flat for value in row.values())
    table = csv.DictWriter(
        text,
        [*columns, "error"],
        restval="",
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if ends else csv.QUOTE_MINIMAL,
    )
    table.writeheader()
    table.writerows(flat)
    # File names need not be UTF-8, but the table is.
    write_text(path, text.getvalue().encode("utf-8", "backslashreplace").decode())


def _flat(row):
    others = dict(row)
    flat = {"file": others.pop("file")}
    pairs = zip(others.pop("classes", ()), others.pop("scores", ()), strict=True)
    for number, (name, score) in enumerate(pairs, start=1):
        flat[f"class_{number}"], flat[f"score_{number}"] = name, score
    flat |= others
    return {name: f"{x:.6g}" if isinstance(x, float) else x for name, x in flat.items()}
