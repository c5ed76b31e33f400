"""The download of published weights, from a server on this machine that acts as the hub."""

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

import keras_crossvit as kc
from tests import base, golden

REPOSITORIES = ("timm/crossvit_9_dagger_240.in1k", "someone/model")


class Hub(http.server.BaseHTTPRequestHandler):
    """`HEAD` and `GET /<owner>/<name>/resolve/main/model.safetensors`, with ranges.

    The first `GET` of a file breaks off in the middle, as networks do.
    """

    def __init__(self, content, seen, *args):
        self.content, self.seen = content, seen
        super().__init__(*args)

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        owner_and_name = "/".join(self.path.split("/")[1:3])
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        if self.path != f"/{owner_and_name}/resolve/main/model.safetensors" or (
            owner_and_name not in REPOSITORIES
        ):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.seen.append((self.command, owner_and_name, start))
        rest = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(rest)))
        if start:
            last = len(self.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        self.end_headers()
        if body:
            is_first = sum(method == "GET" for method, *_ in self.seen) == 1
            self.wfile.write(rest[: len(rest) // 2] if is_first else rest)
            self.close_connection = True

    def log_message(self, *args):
        """Nothing: the test reads `seen`."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """`(address, what was asked for)` of a hub that has the weights of `golden.assign`."""
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    kc.save_checkpoint(golden.assign(golden.variant_model("9_dagger_240")), path)
    seen = []
    handler = functools.partial(Hub, path.read_bytes(), seen)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


DOWNLOAD = """
import sys
import numpy as np
import keras_crossvit as kc
for index, weights in enumerate(sys.argv[2:]):
    model = kc.CrossViT9Dagger(weights=weights)
    np.save(f"{sys.argv[1]}/{index}.npy", model.get_layer("large_head").kernel)
"""

# The hub's client waits 23 seconds between its tries; the test does not.
NO_NETWORK = """
import time
time.sleep = lambda seconds: None
import keras_crossvit as kc
try:
    kc.CrossViT9Dagger(weights="imagenet")
except ConnectionError as error:
    print(error)
"""


def environment(address, home):
    return {"HF_ENDPOINT": address, "HF_HOME": str(home), "NO_PROXY": "*", "no_proxy": "*"}


def test_download_is_resumed_cached_and_used_without_a_network(hub, tmp_path):
    address, seen = hub
    settings = environment(address, tmp_path / "home")
    sources = ("imagenet", "hf://someone/model")
    base.run_python(DOWNLOAD, tmp_path, *sources, **settings)
    expected = golden.weight("head.1.weight", (1000, 256)).T
    for index in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"{index}.npy"), expected)
    gets = [(name, start > 0) for method, name, start in seen if method == "GET"]
    assert gets == [
        (REPOSITORIES[0], False),
        (REPOSITORIES[0], True),  # goes on where it broke off
        (REPOSITORIES[1], False),
    ]
    seen.clear()
    (tmp_path / "0.npy").unlink()
    base.run_python(DOWNLOAD, tmp_path, "imagenet", HF_HUB_OFFLINE="1", **settings)
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), expected)
    assert not seen


@pytest.mark.parametrize(
    "settings",
    [
        {"HF_ENDPOINT": "http://127.0.0.1:9"},  # nobody listens
        {"HF_HUB_OFFLINE": "1"},
    ],
)
def test_missing_network_is_a_connection_error(settings, tmp_path):
    settings = {**environment("http://127.0.0.1:9", tmp_path), **settings}
    printed = base.run_python(NO_NETWORK, **settings)
    assert printed.startswith("`weights='imagenet'` could not be had: timm/crossvit_9_dagger_240")
    assert "weights=None" in printed


def test_repository_that_does_not_exist(hub, tmp_path):
    address, _ = hub
    code = NO_NETWORK.replace('"imagenet"', '"hf://no/body"')
    printed = base.run_python(code, **environment(address, tmp_path))
    assert printed.startswith("`weights='hf://no/body'` could not be had: no/body")
