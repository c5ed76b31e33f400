"""A SavedModel for TensorFlow Serving, in a version folder that appears whole or not at all."""

import os
import pathlib
import tempfile

import keras

from keras_crossvit.common.checks import check_positive_int
from keras_crossvit.export.classifier import check_backend, check_classifier


def export_saved_model(model, directory, labels=None, top_k=5, *, crop_ratio=None):
    """Writes `directory/<version>/`, a SavedModel that TensorFlow Serving can load.

    Signatures, with N free and pixels in 0..255 whatever `include_preprocessing` was:

    - `serving_default`: `images`, float32 `(N, H, W, 3)`, to `probabilities` `(N, classes)`;
    - `classify_bytes`: `image_bytes`, string `(N,)`, whole JPEG, PNG, GIF or BMP files, to
      `classes` (string), `indices` (int32) and `scores` (float32), each `(N, k)`, the highest
      score first. The files are decoded, resized and cropped as in evaluation. A file that
      is no whole picture, or larger than `keras_crossvit.data.formats.MAX_PIXELS`, gives a
      row of class "", index -1 and score 0, and leaves the other rows as they are;
    - `features`: `images` to `features`, float32 `(N, C_small + C_large)`, what the heads
      see: the normalised class tokens of both branches.

    The version is 1, or one more than the highest there is. The folder is written under
    another name first, so that a server that watches `directory` never sees a part of it,
    and several processes may export at once. `assets/labels.txt` holds the names of the
    classes, `assets.extra/tf_serving_warmup_requests` a request for each signature.

    Args:
        model: A classifier of this package, `include_top=True`, for images of 3 channels.
            What it returns are the probabilities, unless its `classifier_activation` is
            `None` or "linear": then their softmax is.
        directory: Folder of the versions; made if it does not exist.
        labels: Names of the classes in order, one line each; by default "0", "1", ...
        top_k: How many classes `classify_bytes` names, positive; at most all are named.
        crop_ratio: As in `evaluation_transform`; `None` for 0.875, and for 1.0 if the model's
            input is 408 x 408, which is how the published checkpoints were evaluated.

    Returns:
        The `pathlib.Path` of `directory/<version>`.

    Raises:
        ValueError: If an argument is not allowed; nothing has been written then.
        RuntimeError: If Keras' backend is not TensorFlow.
    """
    check_classifier(model)
    labels = _check_labels(labels, model.output_shape[-1])
    top_k = min(check_positive_int("top_k", top_k), len(labels))
    if crop_ratio is not None and not 0 < crop_ratio <= 1:
        raise ValueError(
            f"`crop_ratio` must be in (0, 1] or None. Received: crop_ratio={crop_ratio}"
        )
    directory = pathlib.Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"`directory` must be a folder. Received: directory={str(directory)!r}")
    check_backend("export_saved_model")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".export-") as aside:
        labels_file = pathlib.Path(aside, "labels.txt")
        labels_file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        written = pathlib.Path(aside, "saved_model")
        _write(written, model, labels_file, top_k, crop_ratio)
        return _publish(written, directory)


def _write(folder, model, labels_file, top_k, crop_ratio):
    # TensorFlow is imported here, so that the package can be imported without it.
    from keras_crossvit.export.signatures import add_signatures
    from keras_crossvit.export.warmup import write_warmup_requests

    archive = keras.export.ExportArchive()
    add_signatures(archive, model, labels_file, top_k, crop_ratio)
    archive.write_out(str(folder), verbose=False)
    write_warmup_requests(folder, model.input_shape[1:3])


def _publish(written, directory):
    """Gives a finished folder the next version, under that name at once."""
    while True:
        taken = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]
        version = directory / str(max(taken, default=0) + 1)
        try:
            os.rename(written, version)
        except OSError:
            if not version.exists():
                raise
        else:
            return version
        # Another process has just taken this number, so look again.


def _check_labels(labels, classes):
    """The names of the classes, as a list."""
    if labels is None:
        return [str(index) for index in range(classes)]
    names = labels if isinstance(labels, str) else list(labels)
    if isinstance(names, str) or len(names) != classes:
        raise ValueError(
            f"`labels` must be a list of {classes} names, one for each class. "
            f"Received: {type(labels).__name__} of length {len(names)}"
        )
    for name in names:
        # "" is the class of what is no picture, and the file has one name a line.
        if not isinstance(name, str) or name.splitlines() != [name]:
            raise ValueError(
                f"`labels` must be non-empty strings without line breaks. Received: {name!r}"
            )
    return names
