"""The servers that stand in for TensorFlow Serving: all signatures, and what they refuse."""

import http.client
import json

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests import base


@pytest.fixture
def predict(addresses):
    """A request to the gRPC server through the official stubs."""
    with grpc.insecure_channel(addresses["grpc"]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def send(signature, model="crossvit", **inputs):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            outputs = stub.Predict(request, timeout=60).outputs
            return {name: tf.make_ndarray(proto) for name, proto in outputs.items()}

        yield send


@pytest.mark.parametrize("signature", ["serving_default", ""])
def test_probabilities(classifier, predict, signature):
    images = base.pixels(3)
    answer = predict(signature, images=images)
    assert list(answer) == ["probabilities"]
    expected = classifier.predict(images, verbose=0)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


def test_a_request_of_many_megabytes(classifier, predict):
    images = np.repeat(base.pixels(2), 200, axis=0)  # 7.7 MB, beyond gRPC's own limit
    answer = predict("serving_default", images=images)["probabilities"]
    expected = classifier.predict(images[[0, 399]], verbose=0)
    np.testing.assert_allclose(answer[[0, 399]], expected, atol=1e-5)


def test_rest_gives_the_only_output_without_its_name(classifier, addresses):
    images = base.pixels(2)
    connection = http.client.HTTPConnection(addresses["rest"], timeout=60)
    connection.request(
        "POST", "/v1/models/crossvit:predict", json.dumps({"instances": images.tolist()})
    )
    answer = json.loads(connection.getresponse().read())
    connection.close()
    expected = classifier.predict(images, verbose=0)
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            {"signature": "features", "model": "m", "images": np.zeros((1, 40, 40, 3), "float32")},
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(m)",
        ),
        (
            {"signature": "labels", "images": [0.0]},
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "labels" not found.',
        ),
        (
            {"signature": "features", "pixels": [0.0]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "len({pixels}) != len({images})",
        ),
        (
            {"signature": "features", "images": np.zeros((1, 8, 8, 3), "float32")},
            grpc.StatusCode.INVALID_ARGUMENT,
            "(1, 8, 8, 3)",
        ),
        (
            {"signature": "classify_bytes", "image_bytes": [1.0]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "",
        ),
    ],
)
def test_refusals(predict, arguments, code, message):
    with pytest.raises(grpc.RpcError) as refused:
        predict(**arguments)
    assert refused.value.code() == code
    assert message in refused.value.details()
