"""Files on local disks, read by Python, and on remote storage, by fsspec.

A path with a scheme, such as "gs://bucket/file", is remote. fsspec requests only the bytes that
are wanted, and lists a thousand files per request; TensorFlow's file systems read 64 MB ahead of
each record, and ask about each file of a folder. What cannot be read raises an `OSError`, wherever
it is; a scheme whose package is missing raises an `ImportError`.
"""

import concurrent.futures
import contextlib
import errno
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from keras_crossvit.common.checks import expanded
from keras_crossvit.common.files import write_atomically

_REQUESTS = 64  # at the same time in a process; each spends nearly all its time waiting


def is_remote(path: str) -> bool:
    return "://" in path


def join(folder: str, *names: str) -> str:
    """The path of something in a folder; an absolute path stays as it is."""
    if is_remote(names[-1]):
        return names[-1]
    return os.path.join(folder, *names)


def expand(path: str) -> str:
    """`path` with a leading `~` replaced by the home folder, and without `/` at its end."""
    if is_remote(path):
        return path.rstrip("/")
    there = os.fspath(expanded(path))
    short = os.path.normpath(there)
    if os.path.realpath(short) == os.path.realpath(there):
        return short
    # After a link, ".." leads to the folder above the one that is linked, not above the link.
    folder, name = os.path.split(there)
    return os.path.normpath(os.path.join(os.path.realpath(folder), name))


def at_once(function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterator[Any]:
    """The values of a function that waits for requests, for many arguments at the same time."""
    return _threads().map(function, arguments)


def read(path: str) -> bytes:
    """A whole file."""
    if is_remote(path):
        with _remote(path) as (files, inside):
            return files.cat_file(inside)
    with open(path, "rb") as file:
        return file.read()


def read_range(path: str, start: int, size: int) -> bytes:
    """`size` bytes of a file from byte `start`; fewer if it ends earlier."""
    with ranges(path) as read_part:
        return read_part(start, size)


@contextlib.contextmanager
def ranges(path: str) -> Iterator[Callable[[int, int], bytes]]:
    """A context with the function of `start` and `size` that reads parts of one file."""
    if is_remote(path):
        with _remote(path) as (files, inside):
            yield lambda start, size: files.cat_file(inside, start=start, end=start + size)
        return
    with open(path, "rb", buffering=0) as file:

        def read_part(start, size):
            file.seek(start)
            return file.read(size)

        yield read_part


def stat(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds, 0 if the storage keeps none."""
    if not is_remote(path):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    with _remote(path) as (files, inside):
        size = files.info(inside)["size"]
        try:
            changed = files.modified(inside).timestamp()
        except NotImplementedError:
            changed = 0
        return size, round(changed * 1000) * 1_000_000


def is_file(path: str) -> bool:
    return _kind(path) == "file" if is_remote(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    return _kind(path) == "directory" if is_remote(path) else os.path.isdir(path)


def first_missing(folder: str, names: Sequence[str]) -> int | None:
    """The index of the first of many names in a folder that is not a file; `None` if all are.

    Remote folders are listed, rather than asked about each file.
    """

    def paths():
        return (join(folder, name) for name in names)

    folders = {os.path.dirname(path) for path in paths() if is_remote(path)}
    there = {path for found in at_once(_files_in, folders) for path in found}
    missing = (
        number
        for number, path in enumerate(paths())
        if not (path in there if is_remote(path) else os.path.isfile(path))
    )
    return next(missing, None)


def contents(path: str) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in a folder, sorted.

    Hidden ones are left out: previews, checkpoints of notebooks, macOS' "._1.jpg".
    """
    there = _list(path) if is_remote(path) else ((e.name, _entry_kind(e)) for e in _entries(path))
    shown = sorted((name, kind) for name, kind in there if not name.startswith("."))
    kinds = "directory", "file"
    folders, files = ([name for name, kind in shown if kind == wanted] for wanted in kinds)
    return folders, files


def files_below(path: str) -> Iterable[str]:
    """The paths of all files in a folder and the folders in it, relative to it, sorted.

    Hidden ones are left out, as in `contents`. Links to folders are followed, except to a folder
    that the link itself is in, also one above `path`.

    Raises:
        OSError: If one of the folders cannot be read.
    """
    if is_remote(path):
        with _remote(path) as (files, inside):
            there = [name[len(inside) + 1 :] for name in files.find(inside)]
        return sorted(name for name in there if "/." not in f"/{name}")
    above = pathlib.Path(os.path.abspath(path)).parents
    return sorted(_below(path, "", frozenset(map(os.path.realpath, above))))


def files_below_each(paths: Iterable[str]) -> Iterator[Iterable[str]]:
    """`files_below` of many folders; remote ones are read at the same time."""
    paths = [*paths]
    remote = any(map(is_remote, paths))
    return at_once(files_below, paths) if remote else map(files_below, paths)


def write(path: str, content: bytes) -> None:
    """Replaces a file in one step."""
    if is_remote(path):
        with _remote(path) as (files, inside):
            files.pipe_file(inside, content)  # an object is there whole or not at all
        return
    with write_atomically(path) as aside:
        aside.write_bytes(content)


def _below(path, inside, above):
    """The paths of the files in a folder on a disk, with `inside` before them.

    `above` holds the real paths of the folders that lead to it.
    """
    real = os.path.realpath(path)
    if real in above:
        return
    for entry in _entries(path):
        kind = None if entry.name.startswith(".") else _entry_kind(entry)
        if kind == "directory":
            yield from _below(entry.path, f"{inside}{entry.name}{os.sep}", above | {real})
        elif kind == "file":
            yield inside + entry.name


def _entries(path):
    with os.scandir(path) as entries:
        return [*entries]


def _entry_kind(entry):
    """Whether an entry is a "directory" or a "file"; `None` if it may have no end, like a pipe.

    A link to nothing is a file: the log says that it cannot be read, as for others.
    """
    if entry.is_symlink():
        if os.path.isdir(entry.path):
            return "directory"
        there = os.path.exists(entry.path)
        return "file" if os.path.isfile(entry.path) or not there else None
    if entry.is_dir():
        return "directory"
    return "file" if entry.is_file() else None


def _kind(path):
    """What is at a remote path: "file", "directory", or `None`."""
    with _remote(path) as (files, inside):
        try:
            return files.info(inside)["type"]
        except FileNotFoundError:
            return None


def _list(path):
    """The name and kind of everything in a remote folder."""
    with _remote(path) as (files, inside):
        for entry in files.ls(inside, detail=True):
            if entry["name"].rstrip("/") != inside:  # a marker of the folder itself
                yield os.path.basename(entry["name"].rstrip("/")), entry["type"]


def _files_in(path):
    try:
        return [join(path, name) for name, kind in _list(path) if kind == "file"]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _remote(path):
    """A remote path's file system and its path there; in the context, errors are `OSError`s."""
    import fsspec.core

    try:
        files, inside = fsspec.core.url_to_fs(path, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ImportError(f"{path} cannot be read: {error}") from error
    try:
        yield files, inside
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    except OSError:
        raise
    except Exception as error:  # each storage has its own
        raise OSError(f"{path}: {type(error).__name__}: {error}") from error


@functools.cache
def _threads():
    return concurrent.futures.ThreadPoolExecutor(_REQUESTS, "keras_crossvit-read")
