"""The teacher of a run: a finished model, whose answers are learnt alongside the labels."""

import logging
import re
from typing import Any

import keras

from keras_crossvit.common.checks import expanded, first_line
from keras_crossvit.common.class_names import distinct_names
from keras_crossvit.common.registry import NotRegisteredError
from keras_crossvit.data.sources import Source
from keras_crossvit.models import CrossViT, CrossViTConfig, presets
from keras_crossvit.weights.files import load_keras

logger = logging.getLogger(__name__)


def load_teacher(name: str, images: tuple[Any, ...], source: Source) -> keras.Model:
    """The teacher of a run.

    Args:
        name: A preset, with its published weights, or the path of a `.keras` file.
        images: Shape of the images that it will see, `(None, H, W, channels)`.
        source: The data, whose classes it must have. Other names of classes are taken in their
            order, and the log says so.

    Raises:
        ValueError: If there is no such teacher, or it does not fit the images or the classes.
    """
    classes = len(source.class_names)
    if name in presets():
        if classes != 1000:  # its heads would be new, and teach noise
            raise ValueError(
                "`teacher` must be a .keras file unless the data have ImageNet's 1,000 classes. "
                f"Received: teacher={name!r} for {classes} classes"
            )
        teacher = CrossViT(CrossViTConfig.preset(name), input_shape=images[1:])
    elif (path := expanded(name)).is_file():
        teacher = _open_teacher(path)
    else:
        raise ValueError(
            "`teacher` must be the name of a preset or an existing .keras file. "
            f"Received: teacher={name!r}"
        )
    answers = _answers(teacher, images)
    if answers != f"with {(None, classes)}":
        raise ValueError(
            f"`teacher` must take images {images} and answer {(None, classes)}, as the model "
            f"does. Received: teacher={name!r}, which answers {answers}"
        )
    if isinstance(teacher, CrossViT) and teacher.labels:
        _compare_classes(name, distinct_names(teacher.labels), source)
    return teacher


def _answers(teacher, shape):
    """What a model of any kind answers to images of this shape, for a message."""
    try:
        answers = teacher(keras.KerasTensor(shape), training=False)
    except Exception as error:  # of any type, since the model may be anyone's
        return f"with an error: {_reason(error)}"
    if isinstance(answers, keras.KerasTensor):
        return f"with {tuple(answers.shape)}"
    return f"with a {type(answers).__name__}"


def _reason(error):
    """What Keras was told, without its first line about the layer in which it happened."""
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered"):
        return lines[1]
    return first_line(error)


def _compare_classes(name, theirs, source):
    """Refuses a teacher that would mistake the data's classes for each other."""
    others = []
    for number, (own, other) in enumerate(zip(source.class_names, theirs, strict=True)):
        if own != other and other in source.class_names:
            raise ValueError(
                "`teacher` must have the classes of the data in the same order. "
                f"Received: teacher={name!r}, whose class {number} is {other!r} instead of {own!r}"
            )
        others += [(other, own)] if own != other else []
    if others and name not in presets():  # ImageNet's folders have other names than its classes
        logger.warning(
            "teacher=%r has other class names than %s, which are taken in their order: %s as %s, "
            "and so on",
            *(name, source.name, *others[0]),
        )


def _open_teacher(path):
    try:
        return load_keras("teacher", path)
    except NotRegisteredError as error:
        raise ValueError(
            "`teacher` must be made of registered parts; a recipe file (`--recipe FILE.py`) can "
            f"register them first. Received: {path}, where {error}"
        ) from error
