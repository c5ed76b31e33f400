"""Checkpoints of a run: all of its state in one file, complete or absent."""

import concurrent.futures
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from keras_crossvit.common.files import write_atomically

logger = logging.getLogger(__name__)
_KEPT = 2  # the last, and the one before it in case the last is torn
_NAME = "step-{:09d}.safetensors"


class CheckpointWriter:
    """Writes checkpoints in a thread, while training goes on.

    For a `with` statement, whose end waits until the last one is on disk, even if training ends
    with an error.

    Args:
        folder: Folder of the run's checkpoints; `None` writes nothing.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = folder
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._thread.shutdown()
        try:
            self.wait()
        except (OSError, FloatingPointError) as failure:
            if error is None:
                raise
            logger.error("The last checkpoint was not written: %s", failure)

    def write(self, step: int, tensors: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint, once the previous one is on disk.

        Raises:
            OSError: If the previous one could not be written.
            FloatingPointError: If it was not, since a weight is NaN or infinite.
        """
        if self.folder is None:
            return
        if self._writing is not None and not self._writing.done():
            print("\nWaiting for the checkpoint before to be written.", flush=True)
        self.wait()
        self._writing = self._thread.submit(write_checkpoint, self.folder, step, tensors, notes)

    def wait(self) -> None:
        """Waits until the last one is on disk; raises the error that stopped it."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def write_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    tensors: Mapping[str, Any],
    notes: Mapping[str, Any],
) -> None:
    """Writes a checkpoint under a temporary name, renames it, and removes those too old.

    Those of later steps are old, too: they were counted before the batch size or the data changed.

    Args:
        folder: Folder of the run's checkpoints; made if need be.
        step: Number of steps done.
        tensors: `{name: tensor}`, of NumPy or any backend.
        notes: What else belongs to the state, in a form that JSON can hold.

    Raises:
        OSError: If it cannot be written; earlier checkpoints stay.
        FloatingPointError: Likewise, if a weight is NaN or infinite.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notes)
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    _check_finite(arrays, step)
    path = folder / _NAME.format(step)
    with write_atomically(path) as aside:
        metadata = {"notes": text, "digest": _digest(arrays, text)}
        try:
            save_file(arrays, aside, metadata=metadata)
        except SafetensorError as error:  # a full disk, for instance
            raise OSError(f"{path} cannot be written: {error}") from error
    paths = checkpoint_paths(folder)
    end = paths.index(path) + 1
    for old in [*paths[end:], *paths[:end][:-_KEPT]]:
        old.unlink()


def read_last_checkpoint(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The last complete checkpoint in a folder.

    One torn by a full disk or a lost machine is named in the log and passed over.

    Returns:
        `(arrays, notes)` as they were written, or `None` if there is none.

    Raises:
        OSError: If one cannot be read now, which does not make it torn.
    """
    for path in reversed(checkpoint_paths(folder)):
        try:
            with safe_open(path, "numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        except SafetensorError as error:
            reason = str(error)
        else:
            notes = metadata.get("notes", "")
            if metadata.get("digest") == _digest(arrays, notes):
                return arrays, json.loads(notes)
            reason = "its contents do not fit their checksum"
        logger.warning("%s is torn and is skipped: %s", path, reason)
    return None


def checkpoint_paths(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The files of the checkpoints in a folder, whole or torn, the last one last."""
    return sorted(pathlib.Path(folder).glob(_NAME.replace("{:09d}", "*")))


def _check_finite(arrays, step):
    """The loss of a step is that before its update, and so tells of a bad update a step late."""
    for name, array in arrays.items():
        if name.startswith("model ") and not np.isfinite(array).all():
            raise FloatingPointError(
                f"Weights are no longer finite numbers after step {step} ({name}); its checkpoint "
                "is not written, those before it stay."
            )


def _digest(arrays, notes):
    digest = hashlib.blake2b(notes.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
