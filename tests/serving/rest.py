"""The REST interface of TensorFlow Serving over a `Servable`, as far as its clients see it."""

import base64
import contextlib
import http.server
import json
import re
import threading

import numpy as np

from benchmarks.local_server import RequestError

_STATUS = {"NOT_FOUND": 404, "FAILED_PRECONDITION": 400, "INVALID_ARGUMENT": 400}


def _value(item):
    """An instance's value: a file as `{"b64": text}`, or numbers."""
    return base64.b64decode(item["b64"]) if isinstance(item, dict) else item


def _answer(servable, model, body):
    """The server's answer to the row form, `{"signature_name": ..., "instances": [...]}`."""
    files = [_value(item) for item in body["instances"]]
    is_text = isinstance(files[0], bytes)
    name = "image_bytes" if is_text else "images"
    inputs = {name: np.array(files, object if is_text else "float32")}
    outputs = servable.predict(model, body.get("signature_name", ""), inputs)
    # Strings whose name does not end in _bytes are written as text.
    columns = {key: np.vectorize(bytes.decode)(value) if value.dtype == object else value
               for key, value in outputs.items()}  # fmt: skip
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values())).tolist()}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


@contextlib.contextmanager
def serve_rest(servable):
    """Serves a model on 127.0.0.1 while the context lasts; yields "127.0.0.1:port"."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            model = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path).group(1)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, answer = 200, _answer(servable, model, body)
            except RequestError as error:
                status, answer = _STATUS[error.code], {"error": str(error)}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            """Says nothing."""

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64  # 32 clients may come at once

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
