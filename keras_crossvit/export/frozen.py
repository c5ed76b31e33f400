"""A model as one TensorFlow graph of constants, which the converters of other runtimes read."""

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (  # TensorFlow exports it nowhere
    convert_variables_to_constants_v2,
)

from keras_crossvit.export.classifier import gives_logits
from keras_crossvit.models.preprocessing import preprocess_input


def freeze(model):
    """The model's forward pass without variables.

    Variables and captured tensors are why converters fail silently: tf2onnx makes inputs of
    the normalisation's mean and variance, and LiteRT reads variables as NaN.

    Args:
        model: A classifier of this package for images `(N, H, W, 3)`.

    Returns:
        A `tf.function` from `images`, float32 `(N, H, W, 3)` in 0..255, N free, to
        `{"logits": (N, classes)}`, or `"probabilities"` if that is what the model gives.
    """
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")
    name = "logits" if gives_logits(model) else "probabilities"
    normalises = model.include_preprocessing

    @tf.function(autograph=False, input_signature=[spec])
    def forward(images):
        images = preprocess_input(images, include_preprocessing=normalises)
        return model(images, training=False)

    constants = convert_variables_to_constants_v2(forward.get_concrete_function())
    graph, answer = constants.graph.as_graph_def(), constants.outputs[0].name

    # Once more as a function, since the graph alone has lost the names of input and output.
    @tf.function(autograph=False, input_signature=[spec])
    def frozen(images):
        outputs = tf.graph_util.import_graph_def(graph, {"images:0": images}, [answer], name="")
        return {name: outputs[0]}

    return frozen
