"""A model as a TensorFlow graph of constants, for the converters of other runtimes."""

from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (  # not exported elsewhere
    convert_variables_to_constants_v2,
)

from keras_crossvit.export.checks import input_prefixes
from keras_crossvit.export.signatures import make_runner
from keras_crossvit.layers.attention import separate_projections
from keras_crossvit.models import CrossViT
from keras_crossvit.models.answers import gives_logits
from keras_crossvit.models.inputs import image_shape
from keras_crossvit.models.preprocessing import as_model_takes


def freeze(model: CrossViT) -> Any:
    """The model's forward pass as a function without variables.

    Converters silently mishandle variables and captured tensors: tf2onnx turns the mean and
    variance of the normalisation into inputs, and LiteRT reads variables as NaN.

    Args:
        model: A classifier of this package for images `(N, H, W, 3)`.

    Returns:
        A `tf.function` from `images`, float32 `(N, H, W, 3)` in 0..255 with any N, to
        `{"logits": (N, classes)}`, or `"probabilities"` if the model returns those.
    """
    name = "logits" if gives_logits(model) else "probabilities"

    def forward(images):
        return model(as_model_takes(model, images), training=False)

    return _without_variables(forward, model, name)


def freeze_probabilities(model: CrossViT) -> Any:
    """Like `freeze`, but it always returns probabilities, as in the SavedModel.

    A model that takes pairs has two inputs, `small_images` and `large_images`.
    """
    run = make_runner(model)
    return _without_variables(lambda *images: run(*images)[0], model, "probabilities")


def _without_variables(forward, model, name):
    """A function of images as a `tf.function` of constants, `name` being what it returns."""
    shape = (None, *image_shape(model))
    specs = [tf.TensorSpec(shape, tf.float32, f"{x}images") for x in input_prefixes(model)]
    forward = tf.function(forward, autograph=False, input_signature=specs)
    with separate_projections():
        constants = convert_variables_to_constants_v2(forward.get_concrete_function())
    graph, output = constants.graph.as_graph_def(), constants.outputs[0].name

    # Wrapped in a function again, because the graph has lost the names of input and output.
    @tf.function(autograph=False, input_signature=specs)
    def frozen(*images):
        given = {f"{spec.name}:0": image for spec, image in zip(specs, images, strict=True)}
        outputs = tf.graph_util.import_graph_def(graph, given, [output], name="")
        return {name: outputs[0]}

    return frozen
