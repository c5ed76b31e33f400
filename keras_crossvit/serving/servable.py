"""A SavedModel as TensorFlow Serving reads and runs it: TensorFlow's C++ loader and a session.

Keras is not asked. The refusals and their words are the server's (predict_util.cc and
server_core.cc of tensorflow/serving), so that a client can be tested for them.
"""

import tensorflow as tf


class RequestError(Exception):
    """A request that the server refuses.

    Args:
        code: Name of the status, as in `grpc.StatusCode` ("NOT_FOUND", ...).
        message: What the server says.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Servable:
    """One version of a model, loaded.

    Args:
        folder: `.../<version>`, as `export_saved_model` writes it.
        name: The name that requests give the model.
    """

    def __init__(self, folder, name="crossvit"):
        self.name = name
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
        self._signatures = dict(loaded.signature_def)

    def predict(self, model, signature, inputs):
        """Runs one request; any number of threads may call it at once.

        Args:
            model: The model's name.
            signature: The signature's name; "" for "serving_default".
            inputs: `{name: array}`, the signature's inputs.

        Returns:
            `{name: numpy array}`, the signature's outputs.

        Raises:
            RequestError: If the request is refused.
        """
        if model != self.name:
            raise RequestError("NOT_FOUND", f"Servable not found for request: Latest({model})")
        signature = signature or "serving_default"
        if signature not in self._signatures:
            message = f'Serving signature key "{signature}" not found.'
            raise RequestError("FAILED_PRECONDITION", message)
        known = self._signatures[signature]
        if set(inputs) != set(known.inputs):
            sent, wanted = ",".join(sorted(inputs)), ",".join(sorted(known.inputs))
            message = f"input size does not match signature: len({{{sent}}}) != len({{{wanted}}})"
            raise RequestError("INVALID_ARGUMENT", message)
        outputs = {key: tensor.name for key, tensor in known.outputs.items()}
        feeds = {known.inputs[key].name: value for key, value in inputs.items()}
        try:
            return self._session.run(outputs, feeds)
        except (tf.errors.OpError, TypeError, ValueError) as error:
            # The session looks at types and shapes before it runs, the server's too.
            raise RequestError("INVALID_ARGUMENT", str(error)) from error
