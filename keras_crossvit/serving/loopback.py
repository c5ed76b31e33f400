"""The gRPC interface of TensorFlow Serving over a `Servable`, on 127.0.0.1 only."""

import concurrent.futures
import contextlib

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_crossvit.serving.servable import RequestError

_ANY_SIZE = [("grpc.max_receive_message_length", -1)]  # as the server; gRPC's default is 4 MiB


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
def serve_grpc(servable, threads=32):
    """Serves a model while the context lasts.

    Requests are run as they come, without the batching of TensorFlow Serving.

    Args:
        servable: A `Servable`.
        threads: Requests that may run at once.

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
