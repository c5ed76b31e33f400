"""Argument checks, so that all error messages have the same form."""

import dataclasses
import difflib
import math
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_SCHEME = re.compile(r"[a-z][a-z0-9+]+:/")


def plain(value: Any) -> Any:
    """A NumPy number as one of Python's, which JSON can hold; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def make_plain(config: Any) -> None:
    """Does so for the fields of a dataclass, which may be frozen."""
    for field in dataclasses.fields(config):
        object.__setattr__(config, field.name, plain(getattr(config, field.name)))


def check_positive_int(name: str, value: Any) -> int:
    value = plain(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return value


def check_positive(name: str, value: Any) -> float:
    value = plain(value)
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be positive. Received: {name}={value!r}")
    return value


def check_not_negative(name: str, value: Any) -> float:
    value = plain(value)
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a number from 0. Received: {name}={value!r}")
    return value


def check_not_negative_int(name: str, value: Any) -> int:
    value = plain(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"`{name}` must be an integer from 0. Received: {name}={value!r}")
    return value


def check_rate(name: str, value: Any) -> float:
    value = plain(value)
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be a number in [0, 1). Received: {name}={value!r}")
    return float(value)


def check_bool(name: str, value: Any) -> bool:
    value = plain(value)
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be one of False, True. Received: {name}={value!r}")
    return value


def check_between(name: str, value: Any, lowest: float, highest: float) -> Any:
    value = plain(value)
    if not _is_number(value) or not lowest <= value <= highest:
        raise ValueError(
            f"`{name}` must be a number in [{lowest}, {highest}]. Received: {name}={value!r}"
        )
    return value


def check_up_to(name: str, value: Any, highest: int = 1) -> float:
    value = plain(value)
    if not _is_number(value) or not 0 < value <= highest:
        raise ValueError(
            f"`{name}` must be a number in (0, {highest}]. Received: {name}={value!r}"
        )
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_divides(num_heads: int, embed_dim: int) -> None:
    if embed_dim % num_heads:
        raise ValueError(
            f"`num_heads` must divide the width of the tokens, {embed_dim}. "
            f"Received: num_heads={num_heads}"
        )


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    value = plain(value)
    for choice in choices:
        of_kind = isinstance(value, type(choice)) and type(value) is not bool  # True == 1 == 1.0
        if value is choice or (of_kind and value == choice):
            return choice
    allowed = ", ".join(repr(choice) for choice in sorted(choices))
    raise ValueError(
        f"`{name}` must be one of {allowed}. "
        f"Received: {name}={value!r}{did_you_mean(value, choices)}"
    )


def check_path(name: str, path: Any) -> str:
    """The path as a string. An empty one is not the current folder, but one that was forgotten."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(f"`{name}` must be a path. Received: {name}={path!r}")
    return os.fspath(path)


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path with ~ as the home folder, and as it is if it begins with ~ but names no home."""
    return pathlib.Path(os.path.expanduser(path))


def check_reading(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of how images are read for a model: `crop_ratio` and `exif_orientation`."""
    reading: dict[str, Any] = {}
    for name in ("crop_ratio", "exif_orientation"):
        value = (values or {}).get(name)
        if value is not None:
            reading[name] = (check_up_to if name == "crop_ratio" else check_bool)(name, value)
    return reading


def check_local(name: str, path: str | os.PathLike[str]) -> pathlib.Path:
    """The path of something to write, which must be on a disk rather than in a bucket."""
    check_path(name, path)
    if _SCHEME.match(os.fspath(path)):  # a `pathlib.Path` keeps one slash of gs://
        raise ValueError(
            f"`{name}` must be a path on a disk; a bucket can be mounted as one. "
            f"Received: {os.fspath(path)}"
        )
    return expanded(path)


def check_folder(name: str, path: str | os.PathLike[str], writes: bool = True) -> pathlib.Path:
    """The path of a folder on a disk, which need not exist, but can be made and written."""
    folder = check_local(name, path)
    there = next((x for x in (folder, *folder.parents) if os.path.lexists(x)), None)
    if there is None:  # as on a drive that Windows does not have
        raise ValueError(f"`{name}` must be a folder. Received: {folder}, no part of which exists")
    if not there.is_dir():
        what = "which is" if there == folder else f"where {there} is"
        kind = "a broken link" if there.is_symlink() and not there.exists() else "a file"
        raise ValueError(f"`{name}` must be a folder. Received: {folder}, {what} {kind}")
    if writes and not os.access(there, os.W_OK):
        raise PermissionError(
            f"`{name}` must be a folder that can be made and written. "
            f"Received: {folder}, and {there} cannot be written"
        )
    return folder


def did_you_mean(value: Any, choices: Iterable[Any]) -> str:
    """The end of a message that suggests the most similar of `choices`; "" if none is similar."""
    names = [choice for choice in choices if isinstance(choice, str)]
    close = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    return f". Did you mean {close[0]!r}?" if close else ""


def check_grid(name: str, grid: Sequence[Any] | None) -> tuple[int, ...] | None:
    """`(rows, columns)` as a tuple, even where a saved configuration holds a list; or None."""
    if grid is None:
        return None
    if np.size(grid) != 2:
        raise ValueError(f"`{name}` must be (rows, columns) or None. Received: {name}={grid}")
    return tuple(check_positive_int(name, side) for side in grid)


def check_labels(labels: Iterable[Any], classes: int) -> tuple[str, ...]:
    """The class names as a tuple, each one line of text."""
    names = list(labels) if np.iterable(labels) else []
    if isinstance(labels, str) or len(names) != classes:
        length = f" of length {len(names)}" if np.iterable(labels) else f" {labels!r}"
        raise ValueError(
            f"`labels` must be a list of {classes} names, one for each class. "
            f"Received: {type(labels).__name__}{length}"
        )
    for name in names:
        # "" is the class of a file that is not an image, and labels.txt has one name per line.
        if not isinstance(name, str) or name.splitlines() != [name]:
            raise ValueError(
                f"`labels` must be non-empty strings without line breaks. Received: {name!r}"
            )
    return tuple(names)


def breaks_a_line(character: str) -> bool:
    """Whether it is a control character, a surrogate, or ends a line or a paragraph."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def escaped(text: str) -> str:
    """The text with escapes for what would break its line, as a carriage return in a name does."""
    return "".join(x.encode("unicode_escape").decode() if breaks_a_line(x) else x for x in text)


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its type if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException) -> str:
    """What a command says about an error; for a missing package, also how to install it."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        text += '. pip install "keras-crossvit[train]" has what training and evaluation need'
    return escaped(text)
