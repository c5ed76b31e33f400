"""The signatures of the SavedModel, as TensorFlow functions."""

import os
from typing import Any

import keras
import tensorflow as tf

from keras_crossvit.data.images import read_images
from keras_crossvit.export.checks import input_prefixes, reads_files
from keras_crossvit.models import CrossViT
from keras_crossvit.models.answers import gives_logits
from keras_crossvit.models.inputs import image_shape
from keras_crossvit.models.preprocessing import as_model_takes


def add_signatures(
    archive: keras.export.ExportArchive,
    model: CrossViT,
    labels_file: str | os.PathLike,
    top_k: int,
    crop_ratio: float,
    exif_orientation: bool = True,
) -> None:
    """Adds the signatures of `export_saved_model` to an archive.

    Args:
        archive: The archive.
        model: The classifier.
        labels_file: File with the class names, one per line; it becomes an asset.
        top_k: Number of classes that `classify_bytes` returns, at most all.
        crop_ratio: As in `evaluation_transform`.
        exif_orientation: As in `export_saved_model`.
    """
    shape = image_shape(model)
    run = make_runner(model)

    def checked(images):
        # No server compares them with the signature: one image without a batch would end its
        # process, in a convolution, and one of another size or number of channels be answered.
        return [tf.ensure_shape(x, (None, *shape)) for x in images]

    def serving_default(*images):
        return {"probabilities": run(*checked(images))[0]}

    def features(*images):
        return {"features": run(*checked(images))[1]}

    branches = input_prefixes(model)
    images = [tf.TensorSpec((None, *shape), tf.float32, name=f"{x}images") for x in branches]
    archive.add_endpoint("serving_default", serving_default, images)
    if reads_files(model):
        reading = shape, crop_ratio, exif_orientation
        _add_classify_bytes(archive, run, branches, labels_file, top_k, reading)
    archive.add_endpoint("features", features, images)


def _add_classify_bytes(archive, run, branches, labels_file, top_k, reading):
    names = _names(labels_file)

    def classify_bytes(*image_bytes):
        images, good = zip(*(read_images(x, *reading) for x in image_bytes), strict=True)
        readable = tf.reduce_all(tf.stack(good), axis=0)
        scores, indices = tf.math.top_k(run(*images)[0], top_k)
        indices = tf.where(readable[:, tf.newaxis], indices, -1)
        return {
            "classes": names.lookup(tf.cast(indices, tf.int64)),
            "indices": indices,
            "scores": tf.where(readable[:, tf.newaxis], scores, 0.0),
        }

    image_bytes = [tf.TensorSpec((None,), tf.string, name=f"{x}image_bytes") for x in branches]
    archive.track(names)
    archive.add_endpoint("classify_bytes", classify_bytes, image_bytes)


def _names(labels_file):
    """The table from the index of a class to its name, or to "" for any other number."""
    lines = tf.lookup.TextFileInitializer(
        str(labels_file),
        key_dtype=tf.int64,
        key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        value_dtype=tf.string,
        value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    # A table that is made eagerly leaves None among the default graph's initializers, and every
    # later conversion in this process would warn that None cannot be serialized.
    initializers = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS)
    others = len(initializers)
    table = tf.lookup.StaticHashTable(lines, default_value="")
    del initializers[others:]
    return table


def make_runner(model: CrossViT) -> Any:
    """A `tf.function` from pixels in 0..255 to probabilities and features, both float32.

    It takes an array of images, or two where each branch has its own.
    """
    features = [layers.head.input for layers in model.branches.values()]
    outputs = keras.Model(model.input, [model.output, *features])
    logits = gives_logits(model)

    # A separate function, so that the signatures share one graph in the file.
    @tf.function(autograph=False)
    def run(*given):
        images = [as_model_takes(model, x) for x in given]
        images = images if len(images) > 1 else images[0]
        output, *tokens = (tf.cast(x, tf.float32) for x in outputs(images, training=False))
        if logits:
            output = tf.nn.sigmoid(output) if model.classes == 1 else tf.nn.softmax(output)
        return output, tf.concat(tokens, axis=-1)

    return run
