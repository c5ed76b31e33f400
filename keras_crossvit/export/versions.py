"""What the exports for servers share: folders of versions that appear whole, and class names."""

import os
import pathlib
from collections.abc import Iterable

from keras_crossvit.common.checks import check_labels
from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.models import CrossViT, answers


def class_names(model: CrossViT, labels: Iterable[str] | None) -> list[str]:
    """The class names as given, or else the model's own, told apart, or numbers."""
    if labels is None:
        return list(distinct_names(answers.class_names(model)))
    return list(check_labels(labels, model.classes))


def next_version(directory: pathlib.Path) -> str:
    """The name of a folder's next version: "1", or one more than the highest."""
    taken = [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]
    return str(max(taken, default=0) + 1)


def publish(written: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """Renames a finished folder to the next free version, and returns its path."""
    while True:
        version = directory / next_version(directory)
        try:
            os.rename(written, version)
        except OSError:
            if not version.exists():
                raise
        else:
            return version
        # Another process has just taken this version, so look again.
