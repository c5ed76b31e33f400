"""A stand-in for TensorFlow Serving on 127.0.0.1: its gRPC interface over an exported model.

The SavedModel is loaded and run as the server does, by TensorFlow's C++ loader and a session,
without Keras. Refusals and their wording are the server's (predict_util.cc and server_core.cc of
tensorflow/serving), so that a client can be tested against them.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_ANY_SIZE = [("grpc.max_receive_message_length", -1)]  # as in the server; gRPC's default is 4 MiB


class RequestError(Exception):
    """A request that the server refuses.

    Args:
        code: The name of a `grpc.StatusCode` ("NOT_FOUND", ...).
        message: What the server says.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Servable:
    """One version of a model, loaded and ready to run.

    Args:
        folder: `.../<version>`, as `export_saved_model` writes it.
        name: The name by which requests ask for the model.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str = "crossvit"):
        self.name = name
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
        self._signatures = dict(loaded.signature_def)

    def predict(
        self, model: str, signature: str, inputs: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Runs one request; any number of threads may call it at once.

        Args:
            model: The model's name.
            signature: The signature's name; "" for "serving_default".
            inputs: `{name: array}`, all inputs of the signature.

        Returns:
            `{name: numpy array}`, all outputs of the signature.

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
            # Like the server, the session checks types and shapes before it runs.
            raise RequestError("INVALID_ARGUMENT", str(error)) from error


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, servable):
        self._servable = servable

    def Predict(self, request, context):
        spec = request.model_spec
        try:
            inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
            outputs = self._servable.predict(spec.name, spec.signature_name, inputs)
        except RequestError as error:
            context.abort(grpc.StatusCode[error.code], str(error))
        response = predict_pb2.PredictResponse()
        response.model_spec.CopyFrom(spec)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@contextlib.contextmanager
def serve_grpc(servable: Servable, threads: int = 32) -> Iterator[str]:
    """Serves a model while the context lasts.

    Requests run as they come, without the batching of TensorFlow Serving.

    Args:
        servable: The model.
        threads: The number of requests that may run at once.

    Yields:
        The address, "127.0.0.1:port".
    """
    workers = concurrent.futures.ThreadPoolExecutor(threads)
    server = grpc.server(workers, options=_ANY_SIZE)
    service = _PredictionService(servable)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
        workers.shutdown()
