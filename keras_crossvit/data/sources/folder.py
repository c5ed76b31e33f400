"""A folder of image files: `folder:PATH`, where PATH holds `SPLIT/CLASS/*`."""

from typing import Any

import numpy as np

from keras_crossvit.data.sources import storage
from keras_crossvit.data.sources.base import SOURCES, Request, Source, Split
from keras_crossvit.data.sources.compact import Strings

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp")


class FileSplit(Split):
    """Image files with known labels.

    Args:
        root: The folder that the paths are relative to.
        paths: `Strings`.
        labels: int `(N,)`.
    """

    def __init__(self, root: str, paths: Strings, labels: Any) -> None:
        super().__init__(len(paths), remote=storage.is_remote(root))
        self._root, self._paths, self._labels = root, paths, labels

    def name(self, index: int) -> str:
        return storage.join(self._root, self._paths[index])

    def load(self, index: int) -> tuple[bytes, object]:
        return storage.read(self.name(index)), self._labels[index]

    def labels(self) -> np.ndarray:
        return self._labels.astype("int64")


@SOURCES.register("folder")
def open_folder(request: Request) -> Source:
    """Opens `folder:PATH`; the classes are the folders of the split to train on, sorted.

    The split to validate on need not have all of them.
    """
    root = storage.expand(request.location)
    if not storage.is_folder(root):
        raise FileNotFoundError(
            f"`dataset` must name an existing folder. Received: dataset={request.dataset!r}"
        )
    splits = request.choose_splits(storage.folders_in(root))
    class_names = storage.folders_in(storage.join(root, splits[0]))

    def open_split(name):
        return _open_split(storage.join(root, name), class_names)

    return request.source(class_names, splits, open_split)


def _open_split(folder, class_names):
    there = set(storage.folders_in(folder))
    unknown = there - set(class_names)
    if unknown:
        raise ValueError(
            f"The classes of {folder} must be those of the folder to train on. "
            f"Received also: {', '.join(sorted(unknown))}"
        )
    if not there:
        raise ValueError(f"{folder} must hold a folder per class. Received: none")
    paths, counts = Strings(), dict.fromkeys(class_names, 0)
    names = [name for name in class_names if name in there]
    folders = (storage.join(folder, name) for name in names)
    for name, files in zip(names, storage.files_below_each(folders), strict=True):
        before = len(paths)
        for path in files:
            if path.lower().endswith(IMAGE_SUFFIXES):
                paths.append(storage.join(name, path))
        counts[name] = len(paths) - before
        if not counts[name]:
            raise ValueError(
                f"A class's folder needs at least one image ({', '.join(IMAGE_SUFFIXES)}): put "
                f"some there, or remove the folder. Received: none in {storage.join(folder, name)}"
            )
    labels = np.repeat(np.arange(len(class_names), dtype="int32"), [*counts.values()])
    return FileSplit(folder, paths, labels)
