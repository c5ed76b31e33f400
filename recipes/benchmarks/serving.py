"""What it costs to classify image files through a server."""

import concurrent.futures
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_crossvit.export.checks import check_packages
from keras_crossvit.export.saved_model import export_saved_model


def measure_serving(
    model: keras.Model,
    *,
    concurrency: Sequence[int] = (1, 8, 32),
    requests: int = 128,
    image_bytes: bytes | None = None,
) -> dict[str, Any]:
    """Latency and throughput of `classify_bytes` through gRPC on the loopback interface.

    The model is exported, loaded by TensorFlow's C++ loader and served without batching. Each
    request holds one image, and each client sends its next request once the last is answered.
    Clients and server share this machine's cores.

    Args:
        model: A classifier of this package.
        concurrency: Numbers of clients, each positive.
        requests: Total number of timed requests for each number of clients, positive; each
            client sends an untimed one first.
        image_bytes: The image file to send; `None` for a synthetic JPEG of 640 x 480 pixels
            with as much detail as a photograph, about 110 kB.

    Returns:
        `{"picture_bytes": ..., "decode_ms": ..., "decode_share": ..., "clients": {n: {"p50_ms",
        "p95_ms", "p99_ms", "images_per_second"}}}`. `picture_bytes` is the size of the image
        file; `decode_ms` is the median time that the server's graph takes to decode and
        transform it, measured on its own, and `decode_share` its share of the median latency
        with one client, both measured in turns.

    Raises:
        ImportError: If tensorflow-serving-api is not installed; the message names the extra.
        RuntimeError: If Keras' backend is not TensorFlow.
    """
    check_packages("measure_serving", "tensorflow_serving", "grpc")
    from benchmarks.local_server import Servable, serve_grpc  # needs these packages

    image_bytes = image_bytes or _photograph()
    with tempfile.TemporaryDirectory() as folder:
        servable = Servable(export_saved_model(model, folder))
    with serve_grpc(servable, threads=max(concurrency)) as address:
        request = _request(image_bytes, servable.name)
        share = _decode_share(_reader(model, image_bytes), address, request, requests)
        clients = {n: _load(address, request, n, requests) for n in concurrency}
    return {"picture_bytes": len(image_bytes), **share, "clients": clients}


def _photograph():
    """A JPEG of smooth shapes and some grain."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    shapes = tf.image.resize(random.uniform(0, 255, (1, 30, 40, 3)), (480, 640), "bicubic")[0]
    pixels = shapes + random.normal(0, 8, shapes.shape)
    return tf.io.encode_jpeg(tf.saturate_cast(pixels, tf.uint8), quality=90).numpy()


def _reader(model, image_bytes):
    """The part of `classify_bytes` before the model, as a function that runs it once."""
    import tensorflow as tf

    from keras_crossvit.common.pixels import crop_ratio_for
    from keras_crossvit.data.images import read_images

    size = model.input_shape[1:3]
    files = tf.constant([image_bytes])
    read = tf.function(lambda files: read_images(files, size, crop_ratio_for(size)))
    return lambda: read(files)[0].numpy()


def _request(image_bytes, name):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "classify_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image_bytes]))
    return request


def _client(address, request):
    """A function that sends the request on a connection of its own and waits for the answer."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    # Without a pool of their own, all channels of a process share one connection.
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return lambda: stub.Predict(request, timeout=600)


def _seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _decode_share(read, address, request, requests):
    ask = _client(address, request)
    for run in (read, ask, ask):
        run()
    both = [(_seconds(read), _seconds(ask)) for _ in range(requests)]
    decode, whole = (statistics.median(times) for times in zip(*both, strict=True))
    return {"decode_ms": round(1e3 * decode, 2), "decode_share": round(decode / whole, 3)}


def _load(address, request, clients, requests):
    """The latencies of `requests` requests, shared among `clients` clients."""
    asks = [_client(address, request) for _ in range(clients)]

    def send(ask, count):
        return [_seconds(ask) for _ in range(count)]

    counts = [len(range(index, requests, clients)) for index in range(clients)]
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        list(threads.map(send, asks, [1] * clients))
        start = time.perf_counter()
        times = np.concatenate(list(threads.map(send, asks, counts)))
        wall = time.perf_counter() - start
    p50, p95, p99 = (round(1e3 * float(t), 2) for t in np.percentile(times, (50, 95, 99)))
    rate = round(requests / wall, 2)
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "images_per_second": rate}
