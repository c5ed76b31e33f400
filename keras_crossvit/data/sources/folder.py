"""A folder of image files: `folder:PATH`, where PATH holds `SPLIT/CLASS/*`, or `CLASS/*` alone."""

import collections
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_crossvit.data.sources import storage
from keras_crossvit.data.sources.base import SOURCES, VALIDATION, Request, Source, unicode_hint
from keras_crossvit.data.sources.compact import Strings
from keras_crossvit.data.sources.splits import Split

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp")
# Other formats that cameras, scanners and browsers write, which are not read here.
_OTHER_SUFFIXES = (".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl", ".jp2", ".dng", ".svg")

_logger = logging.getLogger("keras_crossvit.data")


class FileSplit(Split):
    """Image files with known labels.

    Args:
        root: The folder that the paths are relative to.
        paths: `Strings`.
        labels: int `(N,)`.
    """

    knows_labels = True

    def __init__(self, root: str, paths: Strings, labels: Any) -> None:
        remote = storage.is_remote(root) or paths.mention("://")
        super().__init__(len(paths), remote=remote)
        self.root, self._paths, self._labels = root, paths, labels

    def name(self, index: int) -> str:
        return storage.join(self.root, self._paths[index])

    def load(self, index: int) -> tuple[bytes, object]:
        return storage.read(self.name(index)), self._labels[index]

    def labels(self) -> np.ndarray:
        return self._labels.astype("int64")


@SOURCES.register("folder")
def open_folder(request: Request) -> Source:
    """Opens `folder:PATH`; the classes are the folders of the split to train on, sorted.

    The split to validate on need not have all of them. If PATH itself holds the classes, it is
    the split "train".
    """
    root = storage.expand(request.location)
    if not storage.is_folder(root):
        raise FileNotFoundError(
            f"`dataset` must name an existing folder. Received: dataset={request.dataset!r}"
        )
    folders, mixed = _splits(root)
    try:
        splits = request.choose_splits(folders)
    except ValueError as error:
        if not mixed:
            raise
        raise ValueError(
            f"{error}. In {root} there are images beside folders in {', '.join(mixed)}, as in no "
            "split; if these are classes, move all of them to PATH/train/, where a class may hold "
            "folders"
        ) from error
    class_names, _ = storage.contents(folders[splits[0]])
    request.log_unread({name: repr(name) for name in folders}, splits)

    def open_split(name):
        return _open_split(folders[name], class_names)

    return request.source(class_names, splits, open_split)


def _splits(root):
    """The folder of each split, by its name, and the names of those that are hardly splits.

    A folder of classes is all one split.
    """
    names, _ = storage.contents(root)
    folders = {name: storage.join(root, name) for name in names}
    if {"train", *VALIDATION}.isdisjoint(names):
        inside = [*storage.at_once(storage.contents, folders.values())]
        images = any(is_image(file) for _, files in inside for file in files)
        if images and not any(deeper for deeper, _ in inside):  # a split would hold folders
            return {"train": root}, []
        mixed = [
            name
            for name, (deeper, files) in zip(names, inside, strict=True)
            if deeper and any(map(is_image, files))
        ]
        return folders, mixed
    return folders, []


def is_image(file: str) -> bool:
    """Whether a file is named like an image of a format that is read."""
    return file.lower().endswith(IMAGE_SUFFIXES)


def _open_split(folder, class_names):
    there, loose = storage.contents(folder)
    unknown = sorted(set(there) - set(class_names))
    if unknown:
        raise ValueError(
            f"The classes of {folder} must be those of the folder to train on. "
            f"Received also: {', '.join(unknown)}{unicode_hint(unknown, class_names)}"
        )
    if not there:
        raise ValueError(
            f"{folder} must hold a folder per class. Received: none. If it is itself a class, "
            "move all classes to PATH/train/"
        )
    paths, counts = Strings(), dict.fromkeys(class_names, 0)
    suffixes = collections.Counter()  # of the other files
    names = [name for name in class_names if name in there]
    folders = (storage.join(folder, name) for name in names)
    for name, files in zip(names, storage.files_below_each(folders), strict=True):
        before = len(paths)
        for path in files:
            if is_image(path):
                paths.append(storage.join(name, path))
            else:
                suffixes[suffix_of(path)] += 1
        counts[name] = len(paths) - before
        if not counts[name]:
            raise ValueError(
                f"A class's folder needs at least one image ({', '.join(IMAGE_SUFFIXES)}): put "
                f"some there, or remove the folder. Received: none in {storage.join(folder, name)}"
            )
    outside = sum(path.lower().endswith(IMAGE_SUFFIXES + _OTHER_SUFFIXES) for path in loose)
    log_left_out(folder, suffixes, outside)
    labels = np.repeat(np.arange(len(class_names), dtype="int32"), [*counts.values()])
    return FileSplit(folder, paths, labels)


def suffix_of(file: str) -> str:
    """What the name of a file ends in, e.g. ".heic"."""
    return os.path.splitext(file)[1].lower()


def log_left_out(folder: str, suffixes: Mapping[str, int], outside: int = 0) -> None:
    """Logs which images of a folder are left out, so that they do not go unseen.

    Args:
        folder: The folder.
        suffixes: How many of its files that are not read have each suffix, images or not.
        outside: How many images are outside of any class.
    """
    counts = [f"{suffixes[suffix]} {suffix}" for suffix in _OTHER_SUFFIXES if suffix in suffixes]
    if outside:
        counts.append(f"{outside} outside of any class")
    if counts:
        _logger.warning("%s: images that are left out: %s", folder, ", ".join(counts))
