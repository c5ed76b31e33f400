"""Triton's protocol V2 over a `TritonModel`, as far as its clients see it: HTTP and gRPC.

Refusals and their wording are the server's (its tests in qa/ and src/http_server.cc).
"""

import concurrent.futures
import contextlib
import http.server
import json
import re
import struct
import threading

import grpc
import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.export.triton_model import RefusedError

_ANY_SIZE = [("grpc.max_receive_message_length", -1)]


def _unknown(name):
    return f"Request for unknown model: '{name}' is not found"


def _read(body, header_length):
    """The JSON object of a request, and its inputs, which follow it as bytes."""
    request = json.loads(body[:header_length])
    inputs, at = {}, header_length
    for tensor in request["inputs"]:
        assert tensor["datatype"] == "FP32"
        size = tensor["parameters"]["binary_data_size"]
        values = np.frombuffer(body[at : at + size], "<f4")
        inputs[tensor["name"]] = values.reshape(tensor["shape"])
        at += size
    assert at == len(body)
    return request, inputs


def _answer(model, method, path, body, header_length):
    """The status and the JSON object that Triton answers with."""
    name, what = re.fullmatch(r"/v2/models/([^/]+)/(config|infer)", path).groups()
    if name != model.name:
        return 404, {"error": _unknown(name)}
    if what == "config":
        assert method == "GET"
        known = json_format.MessageToDict(model.config, preserving_proto_field_name=True)
        for tensor in known["input"] + known["output"]:
            tensor["dims"] = [int(side) for side in tensor["dims"]]  # as the server writes them
        return 200, known
    request, inputs = _read(body, header_length)
    (wanted,) = request["outputs"]
    try:
        values = model.infer(inputs)[wanted["name"]]
    except RefusedError as error:
        return 400, {"error": str(error)}
    texts = model.classify(wanted["name"], values, wanted["parameters"]["classification"])
    output = {"name": wanted["name"], "datatype": "BYTES", "shape": texts.shape}
    return 200, {"outputs": [output | {"data": [text.decode() for text in texts.ravel()]}]}


@contextlib.contextmanager
def serve_v2_rest(model):
    """Serves a model on 127.0.0.1 while the context lasts; yields "127.0.0.1:port"."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            length = int(self.headers["Inference-Header-Content-Length"] or 0)
            status, answer = _answer(model, self.command, self.path, body, length)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, model):
        self._model = model

    def ModelConfig(self, request, context):
        self._check(request.name, context)
        return service_pb2.ModelConfigResponse(config=self._model.config)

    def ModelInfer(self, request, context):
        self._check(request.model_name, context)
        pairs = zip(request.inputs, request.raw_input_contents, strict=True)
        inputs = {t.name: np.frombuffer(raw, "<f4").reshape(t.shape) for t, raw in pairs}
        (wanted,) = request.outputs
        try:
            values = self._model.infer(inputs)[wanted.name]
        except RefusedError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        count = wanted.parameters["classification"].int64_param
        texts = self._model.classify(wanted.name, values, count)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name=wanted.name, datatype="BYTES", shape=texts.shape)
        raw = b"".join(struct.pack("<I", len(text)) + text for text in texts.ravel())
        response.raw_output_contents.append(raw)
        return response

    def _check(self, name, context):
        if name != self._model.name:
            context.abort(grpc.StatusCode.NOT_FOUND, _unknown(name))


@contextlib.contextmanager
def serve_v2_grpc(model):
    """Like `serve_v2_rest`, through gRPC."""
    workers = concurrent.futures.ThreadPoolExecutor(8)
    server = grpc.server(workers, options=_ANY_SIZE)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Service(model), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
        workers.shutdown()
