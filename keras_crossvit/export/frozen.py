"""A model as a TensorFlow graph of constants, for the converters of other runtimes."""

from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (  # not exported elsewhere
    convert_variables_to_constants_v2,
)

from keras_crossvit.export.checks import gives_logits, takes_pixels
from keras_crossvit.models import CrossViT
from keras_crossvit.models.preprocessing import preprocess_input


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
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")
    name = "logits" if gives_logits(model) else "probabilities"
    normalises = takes_pixels(model)

    @tf.function(autograph=False, input_signature=[spec])
    def forward(images):
        images = preprocess_input(
            images, include_preprocessing=normalises, mean=model.mean, std=model.std
        )
        return model(images, training=False)

    constants = convert_variables_to_constants_v2(forward.get_concrete_function())
    graph, output = constants.graph.as_graph_def(), constants.outputs[0].name

    # Wrapped in a function again, because the graph has lost the names of input and output.
    @tf.function(autograph=False, input_signature=[spec])
    def frozen(images):
        outputs = tf.graph_util.import_graph_def(graph, {"images:0": images}, [output], name="")
        return {name: outputs[0]}

    return frozen
