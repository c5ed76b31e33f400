"""What a run leaves when it is done: the model, its SavedModel, the results."""

import hashlib
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_crossvit.common.files import as_json, write_atomically, write_json
from keras_crossvit.export import export_saved_model
from keras_crossvit.export.versions import next_version
from keras_crossvit.models import CrossViT
from keras_crossvit.models.pretrained import write_folder
from keras_crossvit.training.folder import read_json
from keras_crossvit.training.preemption import Preempted
from keras_crossvit.training.recipes import loaded_files, run_file

logger = logging.getLogger(__name__)

_EXPORT = (
    "import json, sys; from keras_crossvit.training.finish import export_file; "
    "export_file(**json.load(sys.stdin))"
)


def write_result(
    folder: pathlib.Path,
    model: CrossViT,
    results: Mapping[str, float],
    options: Mapping[str, Any],
    resume: bool,
    data: str,
) -> str:
    """Saves and exports a model, once: what is already there and intact is left as it is.

    Args:
        folder: The run's folder; gets `model.keras`, `export/<version>/`, `result.json` and what
            `CrossViT.save_pretrained` writes.
        model: The model with its final weights.
        results: What `result.json` holds besides the export.
        options: Further arguments of `export_saved_model`.
        resume: Whether the run may have written all this before.
        data: What the model card calls the data.

    Returns:
        Folder of the SavedModel.

    Raises:
        Preempted: If SIGTERM ended a process that exports.
    """
    path, saved, exports = folder / "result.json", folder / "model.keras", folder / "export"
    before = (read_json(path) if resume else None) or {}
    read = {name: options[name] for name in ("crop_ratio", "exif_orientation")}
    # Version 0.1 did not record how the export reads images.
    before = {**as_json(read), **before} if before else {}
    recorded = {**results, **read}
    written = all(before.get(name) == value for name, value in as_json(recorded).items())
    if not written or not saved.is_file() or before.get("digest") not in (None, _digest(saved)):
        with write_atomically(saved) as aside:
            model.save(aside)
    digest = _digest(saved)
    _describe(folder, model, {"data": data, **results})
    # Recorded before it is made, so that a run killed in between makes no second version.
    version = pathlib.PurePath(before["export"]).name if written else next_version(exports)
    export = str(exports / version)
    write_json(path, {**recorded, "export": export, "digest": digest})
    if not pathlib.Path(export).is_dir():
        made = _export(model, saved, exports, options)
        if made != export:
            write_json(path, {**recorded, "export": made, "digest": digest})
            export = made
    return export


def _describe(folder, model, details):
    """Makes the run's folder one that `from_pretrained` and timm can read."""
    try:
        write_folder(model, folder, details=details)
    except ValueError as error:  # in a custom design two weights may have the same name
        logger.warning("%s gets no model.safetensors: %s", folder, error)


def export_file(
    model: str, directory: str, options: Mapping[str, Any], recipes: Sequence[str]
) -> None:
    """Exports a `.keras` file and prints the version's folder.

    Args:
        model: Path of the file.
        directory: As in `export_saved_model`.
        options: Its further arguments.
        recipes: Python files of recipes, which may register parts of the model.
    """
    for path in recipes:
        run_file(pathlib.Path(path))
    loaded = keras.saving.load_model(model, compile=False)
    print(export_saved_model(loaded, directory, **options))


def _export(model, saved, exports, options):
    """The new version's folder, made by a separate process unless Keras runs on TensorFlow."""
    if keras.backend.backend() == "tensorflow":
        return str(export_saved_model(model, exports, **options))
    arguments = {"model": str(saved), "directory": str(exports), "options": dict(options)}
    arguments["recipes"] = loaded_files()
    # Away from the accelerator, which this process holds.
    environment = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    process = subprocess.run(
        [sys.executable, "-c", _EXPORT],
        input=json.dumps(arguments),  # an argument takes 128 KiB, and labels may be more
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode == -signal.SIGTERM:  # which schedulers send to all processes of a run
        print("\nSIGTERM during the export: run the same command again to make it.", flush=True)
        raise Preempted
    if process.returncode:
        raise ChildProcessError(
            f"The model is saved as {saved}, but its export on TensorFlow failed; "
            "see the messages above"
        )
    return process.stdout.splitlines()[-1]


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
