"""Exports a SavedModel for TensorFlow Serving; its version folder appears in one step."""

import os
import pathlib
import tempfile
from collections.abc import Iterable

import keras

from keras_crossvit.common.checks import check_folder, check_positive_int
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.export.checks import (
    check_backend,
    check_classifier,
    input_prefixes,
    reads_files,
)
from keras_crossvit.export.versions import class_names, publish
from keras_crossvit.models import CrossViT
from keras_crossvit.models.inputs import image_shape


def export_saved_model(
    model: CrossViT,
    directory: str | os.PathLike,
    labels: Iterable[str] | None = None,
    top_k: int = 5,
    *,
    crop_ratio: float | None = None,
    exif_orientation: bool = True,
) -> pathlib.Path:
    """Writes `directory/<version>/`, a SavedModel that TensorFlow Serving can load.

    It has these signatures, for any N, with pixels in 0..255 whatever `include_preprocessing`
    was:

    - `serving_default`: from `images`, float32 `(N, H, W, 3)`, to `probabilities`
      `(N, classes)`;
    - `classify_bytes`: from `image_bytes`, string `(N,)`, the contents of JPEG, PNG, GIF, BMP
      or WebP files, to `classes` (string), `indices` (int32) and `scores` (float32), each
      `(N, k)`, the highest score first. The images are decoded, turned upright, resized and
      cropped as in evaluation. For a file that is not a complete image, or is beyond the limits
      of `keras_crossvit.data.formats`, the classes are "", the indices -1 and the scores 0; the
      other rows are not affected;
    - `features`: from `images` to `features`, float32 `(N, C_small + C_large)`, the input of
      the heads: the normalised class tokens of both branches.

    A model for images of other than 1 or 3 channels has no `classify_bytes`. One with
    `inputs="separate"` has two inputs for each, `small_images` and `large_images`, or
    `small_image_bytes` and `large_image_bytes`.

    The version is 1, or one more than the highest in `directory`. The folder is first written
    under another name, so that a server that watches `directory` never sees an incomplete
    version, and several processes can export at once. `assets/labels.txt` contains the class
    names of `classify_bytes`, and `assets.extra/tf_serving_warmup_requests` a request for each
    signature.

    Args:
        model: A classifier of this package, `include_top=True`.
            If its `classifier_activation` is `None` or "linear", the probabilities are the
            softmax of its output, with one class the sigmoid; otherwise they are its output.
        directory: Folder of the versions; created if it does not exist.
        labels: The class names in order, without line breaks; `None` for the model's own, or, if
            it has none, "0", "1", ... Of its own, those that occur more than once get their
            numbers: "crane (134)".
        top_k: Number k of classes that `classify_bytes` returns; positive, at most all of them.
        crop_ratio: As in `evaluation_transform`; `None` for 0.875, or 1.0 if the model's
            input is 408 x 408, as the published checkpoints were evaluated.
        exif_orientation: Whether `classify_bytes` turns images upright according to their EXIF,
            as in `InputConfig`.

    Returns:
        The path `directory/<version>`.

    Raises:
        ValueError: If an argument is not allowed; then nothing is written.
        RuntimeError: If Keras' backend is not TensorFlow.
    """
    check_classifier(model, pairs=True)
    names = class_names(model, labels)
    top_k = min(check_positive_int("top_k", top_k), len(names))
    ratio = crop_ratio_for(image_shape(model), crop_ratio)
    directory = check_folder("directory", directory)
    check_backend("export_saved_model")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".export-") as aside:
        labels_file = pathlib.Path(aside, "labels.txt")
        labels_file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        written = pathlib.Path(aside, "saved_model")
        _write(written, model, labels_file, top_k, ratio, exif_orientation)
        return publish(written, directory)


def _write(folder, model, labels_file, *values):
    # Imported here, so that the package can be imported without TensorFlow.
    import tensorflow as tf

    from keras_crossvit.export.signatures import add_signatures
    from keras_crossvit.export.warmup import write_warmup_requests

    archive = keras.export.ExportArchive()
    add_signatures(archive, model, labels_file, *values)
    try:
        archive.write_out(str(folder), verbose=False)
    except tf.errors.ResourceExhaustedError as error:  # a full disk
        raise OSError(f"The export cannot be written: {error.message.splitlines()[0]}") from error
    write_warmup_requests(folder, image_shape(model), input_prefixes(model), reads_files(model))
