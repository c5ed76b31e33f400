"""Requests that TensorFlow Serving runs on a new version before it receives traffic.

The server reads a TFRecord file of `PredictionLog` messages. These consist only of strings and
nested messages, which protocol buffers encode in the same way (field number, length, content), so
this module encodes them itself: the package with their classes, tensorflow-serving-api, requires
its own TensorFlow distribution. The tests read the file with these classes.
"""

import pathlib
from collections.abc import Sequence

import tensorflow as tf

_FILE = "assets.extra/tf_serving_warmup_requests"
# Field numbers, from tensorflow_serving/apis/*.proto.
_PREDICT_LOG, _REQUEST = 6, 1  # PredictionLog.predict_log, PredictLog.request
_MODEL_SPEC, _INPUTS = 1, 2  # PredictRequest.model_spec, .inputs
_SIGNATURE_NAME = 3  # ModelSpec.signature_name
_KEY, _VALUE = 1, 2  # an entry of a map


def write_warmup_requests(
    saved_model: pathlib.Path,
    shape: tuple[int, int, int],
    branches: Sequence[str],
    with_files: bool,
) -> None:
    """Writes a request with one image for each signature of a SavedModel.

    Args:
        saved_model: Folder of the SavedModel.
        shape: `(height, width, channels)` of the model's input.
        branches: What the inputs' names begin with: nothing, or "small_" and "large_".
        with_files: Whether there is a signature `classify_bytes`.
    """
    # A single grey value and a shape, so that the message is small at any image size.
    images = tf.make_tensor_proto(127.0, dtype=tf.float32, shape=(1, *shape))
    image = tf.io.encode_jpeg(tf.fill([*shape[:2], 3], tf.constant(127, tf.uint8)))
    image_bytes = tf.make_tensor_proto([image.numpy()], dtype=tf.string)
    path = saved_model / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        names = [f"{branch}images" for branch in branches]
        files = [f"{branch}image_bytes" for branch in branches]
        writer.write(_prediction_log("serving_default", names, images))
        if with_files:
            writer.write(_prediction_log("classify_bytes", files, image_bytes))
        writer.write(_prediction_log("features", names, images))


def _prediction_log(signature, names, tensor):
    """A `PredictionLog` with one request: `tensor` as each of the inputs of `signature`."""
    request = _field(_MODEL_SPEC, _field(_SIGNATURE_NAME, signature.encode()))
    for name in names:
        entry = _field(_KEY, name.encode()) + _field(_VALUE, tensor.SerializeToString())
        request += _field(_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number, content):
    """The encoding of a field that contains a message or a string."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    """The encoding of an integer: seven bits per byte, the lowest first."""
    head = bytearray()
    while value > 127:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes(head) + bytes([value])
