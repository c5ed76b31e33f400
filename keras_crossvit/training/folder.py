"""The folder of a run: one process writes to it, and the same run resumes in it."""

import contextlib
import json
import logging
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator
from typing import Any

from keras_crossvit.common.checks import check_folder
from keras_crossvit.common.files import write_text
from keras_crossvit.models.card import is_card
from keras_crossvit.training.checkpoints import checkpoint_paths
from keras_crossvit.training.config import TrainConfig

logger = logging.getLogger(__name__)

_LEFTOVERS = (".writing-*", "checkpoints/.writing-*", "export/.export-*")
# What a run writes, except its exports, which a server may be reading. Checkpoints are moved
# first: without them nothing resumes the old run if the process is killed in between.
_MODELS = ("model.keras", "best.keras", "model.safetensors")
_WRITTEN = (
    *("checkpoints", "config.json", "log.csv", "tensorboard", "curves.png", "result.json"),
    *("labels.txt", "README.md"),
    *(f"held_out.{suffix}" for suffix in ("png", "jpg", "gif", "bmp", "webp")),
    *_MODELS,
)


@contextlib.contextmanager
def run_folder(config: TrainConfig, writes: bool) -> Iterator[pathlib.Path]:
    """A context in which the folder belongs to this process, which clears it of broken files.

    Args:
        config: The `TrainConfig` of the run.
        writes: Whether this process writes; others of the same run only read.

    Yields:
        The folder; made if need be by the process that writes.

    Raises:
        ValueError: If it is a file or in a bucket, or another process is training in it.
        OSError: If it cannot be written.
    """
    folder = check_folder("output_dir", config.output_dir, writes)
    if not writes:
        yield folder
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder, made):
        for pattern in _LEFTOVERS:  # of a process that was killed while it wrote
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield folder


@contextlib.contextmanager
def _alone_in(folder, made):
    """A context in which no other process trains in the folder, including on Windows.

    If nothing was written, as by a run that is refused, nothing is left: neither the lock nor, if
    the run made it, the folder.
    """
    import filelock  # of the extra `train`

    owner = folder / ".owner"
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise ValueError(
            f"`output_dir` must not be in use. Received: {folder}, where {who} trains"
        ) from error
    try:
        write_text(owner, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        unused = [path.name for path in folder.glob("*")] == [".lock"]
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            if unused:
                (folder / ".lock").unlink()
        lock.release()
        with contextlib.suppress(OSError):  # another run may have begun
            if unused and made:
                folder.rmdir()


def begin_run(folder: pathlib.Path, config: TrainConfig, resumed: bool) -> None:
    """Prepares the folder for what the run will write; until then nothing in it has changed.

    A run that starts afresh moves aside what an earlier one left: its model would otherwise be
    taken for the new run's until that is done, and its checkpoints, of which none can be read,
    would be removed. In `config.json` a resumed run keeps what describes the model there is.

    Args:
        folder: The run's folder.
        config: Its `TrainConfig`.
        resumed: Whether `last_state` found a checkpoint.
    """
    left = any((folder / name).exists() for name in _MODELS)
    left |= bool(checkpoint_paths(folder / "checkpoints"))
    if not resumed and (left or not config.resume):
        put_aside(folder)
    before = read_json(folder / "config.json") if resumed else None
    (folder / "checkpoints").mkdir(exist_ok=True)  # now, not after hours, if it cannot be made
    config.save(folder / "config.json", before)


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """What a file of the run holds, or `None` if it is missing or broken, which is logged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is broken and is written anew: %s", path, error)
        return None
    return found if isinstance(found, dict) else None


def put_aside(folder: pathlib.Path) -> None:
    """Moves what an earlier run wrote in the folder to `before.1`, or the next free number, in it.

    The commands read it there as they would the run; `export/` stays.
    """
    written = [folder / name for name in _WRITTEN if (folder / name).exists()]
    if (readme := folder / "README.md") in written and not is_card(readme):
        written.remove(readme)  # someone's own
    if not written:
        return
    before = next_before(folder)
    before.mkdir()
    for path in written:
        path.rename(before / path.name)
    logger.warning("%s starts afresh; what an earlier run wrote is now in %s", folder, before)


def next_before(folder: pathlib.Path) -> pathlib.Path:
    """Where `put_aside` would move what is in the folder."""
    number = 1
    while (folder / f"before.{number}").exists():
        number += 1
    return folder / f"before.{number}"
