"""Requests that TensorFlow Serving plays to a new version before it takes traffic.

The server reads a TFRecord file of `PredictionLog` messages. They are nested messages and
strings only, which protocol buffers all write in one way (number of the field, length,
content), so they are written here: the package that has their classes,
tensorflow-serving-api, asks for a TensorFlow distribution of its own. The tests read the
file by those classes.
"""

import tensorflow as tf

_FILE = "assets.extra/tf_serving_warmup_requests"
# Numbers of the fields, from tensorflow_serving/apis/*.proto.
_PREDICT_LOG, _REQUEST = 6, 1  # PredictionLog.predict_log, PredictLog.request
_MODEL_SPEC, _INPUTS = 1, 2  # PredictRequest.model_spec, .inputs
_SIGNATURE_NAME = 3  # ModelSpec.signature_name
_KEY, _VALUE = 1, 2  # an entry of a map


def write_warmup_requests(saved_model, size):
    """Writes one request of one picture for each signature of a SavedModel.

    Args:
        saved_model: `pathlib.Path` of the SavedModel.
        size: `(height, width)` of the model's input.
    """
    # One grey value and a shape: the message stays small at any size.
    images = tf.make_tensor_proto(127.0, dtype=tf.float32, shape=(1, *size, 3))
    picture = tf.io.encode_jpeg(tf.fill([*size, 3], tf.constant(127, tf.uint8)))
    image_bytes = tf.make_tensor_proto([picture.numpy()], dtype=tf.string)
    path = saved_model / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(_prediction_log("serving_default", "images", images))
        writer.write(_prediction_log("classify_bytes", "image_bytes", image_bytes))
        writer.write(_prediction_log("features", "images", images))


def _prediction_log(signature, name, tensor):
    """A `PredictionLog` of one request: `tensor` as the input `name` of `signature`."""
    spec = _field(_SIGNATURE_NAME, signature.encode())
    entry = _field(_KEY, name.encode()) + _field(_VALUE, tensor.SerializeToString())
    request = _field(_MODEL_SPEC, spec) + _field(_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number, content):
    """A field that holds a message or a string."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    """A whole number, seven bits a byte, the lowest first."""
    head = bytearray()
    while value > 127:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes(head) + bytes([value])
