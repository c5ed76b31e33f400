"""Checkpoints of a run: all of its state in one file, whole or not there."""

import hashlib
import json
import logging
import pathlib

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from keras_crossvit.common.files import write_atomically

logger = logging.getLogger(__name__)
_KEPT = 2  # the last, and one before it, should the last be torn
_NAME = "step-{:09d}.safetensors"


def write_checkpoint(folder, step, arrays, notes):
    """Writes a checkpoint aside, renames it, and removes those that are too old.

    Args:
        folder: Where the checkpoints of the run are; made if need be.
        step: Number of steps that are done.
        arrays: `{name: array}`.
        notes: What else belongs to the state, as JSON can hold it.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    notes = json.dumps(notes)
    with write_atomically(folder / _NAME.format(step)) as aside:
        save_file(arrays, aside, metadata={"notes": notes, "digest": _digest(arrays, notes)})
    for path in _paths(folder)[:-_KEPT]:
        path.unlink()


def read_last_checkpoint(folder):
    """The last whole checkpoint in a folder.

    A torn one, by a full disk or a lost machine, is named in the log and passed over.

    Returns:
        `(arrays, notes)` as they were written, or `None` if there is none.
    """
    for path in reversed(_paths(pathlib.Path(folder))):
        try:
            with safe_open(path, "numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            reason = error
        else:
            notes = metadata.get("notes", "")
            if metadata.get("digest") == _digest(arrays, notes):
                return arrays, json.loads(notes)
            reason = "its contents do not fit their checksum"
        logger.warning("%s is torn and is passed over: %s", path, reason)
    return None


def put_aside(path):
    """Renames what an earlier run left, so that a new run does not mix with it."""
    path = pathlib.Path(path)
    if path.exists():
        number = 1
        while path.with_name(f"{path.name}.{number}").exists():
            number += 1
        path.rename(path.with_name(f"{path.name}.{number}"))


def _paths(folder):
    return sorted(folder.glob(_NAME.replace("{:09d}", "*")))


def _digest(arrays, notes):
    digest = hashlib.blake2b(notes.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
    return digest.hexdigest()
