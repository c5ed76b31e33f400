"""Writes files completely or not at all."""

import contextlib
import json
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A context that replaces a file in one step, once its new contents are on the disk.

    The contents go to a temporary file in the same folder, with the same ending. If the
    context ends in an exception, or the process is killed, `path` is what it was before.

    Args:
        path: The file to write; its folder exists.

    Yields:
        The `pathlib.Path` of the temporary file, to be written in the context.
    """
    path = pathlib.Path(path)
    # Its end alone, for 255 bytes are all that a name may have, and a character has up to 4.
    aside = path.parent.absolute() / f".writing-{secrets.token_urlsafe(6)}{path.name[-50:]}"
    name = os.fspath(aside)
    try:
        handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    except OSError as error:
        error.filename = os.fspath(path)  # rather than a name that nobody knows
        raise
    mode = stat.S_IMODE(os.fstat(handle).st_mode)  # as the umask allows
    os.close(handle)
    try:
        yield aside
        with open(aside, "r+b") as file:  # Windows does not sync a file that is only read
            os.fsync(file.fileno())
        aside.chmod(mode)  # what was written may be another file, with other permissions
        os.replace(aside, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, name):  # a full disk has no name
            error.filename = os.fspath(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a UTF-8 text file in one step; see `write_atomically`."""
    with write_atomically(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """Replaces a JSON file in one step; see `write_atomically` and `as_json`."""
    write_text(path, json.dumps(as_json(values), indent=2) + "\n")


def as_json(values: Any) -> Any:
    """The values as a JSON file would return them: tuples as lists, and NaN as `None`."""
    return json.loads(json.dumps(values), parse_constant=lambda constant: None)
