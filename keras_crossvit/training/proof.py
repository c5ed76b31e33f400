"""Whether the export works: one held-out image, as a file, through the SavedModel."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_crossvit.common.checks import first_line
from keras_crossvit.data.sources import Source

_MOST_TRIED = 32  # images that cannot be read
# What files of each format begin with, from which byte on; PNG is the rest.
_SUFFIXES = {
    (0, b"\xff\xd8\xff"): ".jpg",
    (0, b"GIF8"): ".gif",
    (0, b"BM"): ".bmp",
    (8, b"WEBP"): ".webp",
}


def classify_held_out_picture(
    source: Source, export: str | os.PathLike[str], output_dir: str | os.PathLike[str]
) -> tuple[pathlib.Path, str, list[tuple[str, float]]]:
    """Writes the first readable held-out image to a file, and classifies it with the SavedModel.

    Args:
        source: The `Source` that the model was trained on.
        export: Folder of the SavedModel, `.../export/<version>`.
        output_dir: Where the image is written, as `held_out.png` or with the suffix of another
            format.

    Returns:
        `(path, true class name, [(class name, score), ...])`, the highest score first; for an
        image with several labels their names are joined by "|".

    Raises:
        ValueError: If the SavedModel is damaged.
        OSError: If the image cannot be written.
    """
    classify = _load(export)
    for row in range(min(source.validation.size, _MOST_TRIED)):
        _, (encoded,), (label,) = source.validation.read([row])
        answer = classify(image_bytes=tf.constant([encoded]))
        if answer["classes"][0, 0] != b"":  # as it is for an unreadable image
            break
    found = (suffix for (at, magic), suffix in _SUFFIXES.items() if encoded.startswith(magic, at))
    path = pathlib.Path(output_dir) / f"held_out{next(found, '.png')}"
    path.write_bytes(encoded)

    names = [name.decode() for name in answer["classes"][0].numpy()]
    scores = answer["scores"][0].numpy().tolist()
    numbers = np.flatnonzero(label) if np.ndim(label) else [label]
    truth = "|".join(source.class_names[number] for number in numbers)
    return path, truth, list(zip(names, scores, strict=True))


def _load(export):
    try:
        return tf.saved_model.load(export).signatures["classify_bytes"]
    except Exception as error:  # TensorFlow raises many types of error for damaged files
        raise ValueError(
            "`output_dir` must hold a whole SavedModel; without it, the same command makes it "
            f"again. Received: {export}, which cannot be read: {first_line(error)}"
        ) from error
