"""The download of published weights, from a server on this machine that acts as the hub."""

import functools
import hashlib
import http.server
import pathlib
import threading

import huggingface_hub
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.weights import sources
from tests import base, golden

pytestmark = pytest.mark.slow

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
    """`(address, what was requested)` of a hub that has the weights of `golden.assign`."""
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


# The hub's client waits 23 seconds between its tries; the test does not.
DOWNLOAD = """
import sys, time
time.sleep = lambda seconds: None
import numpy as np
import keras_crossvit as kc
for index, weights in enumerate(sys.argv[2:]):
    try:
        model = kc.CrossViT9Dagger(weights=weights)
    except ConnectionError as error:
        print(error)
        continue
    np.save(f"{sys.argv[1]}/{index}.npy", model.get_layer("large_head").kernel)
"""
ALLOWED = "Allowed without a network: weights=None, or the path of a file."


def download(address, folder, *sources, **environment):
    """What a new process prints, with a cache of its own in `folder`."""
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(folder / "home"), "NO_PROXY": "*"}
    return base.run_python(DOWNLOAD, folder, *sources, **environment)


def test_download_is_resumed_cached_and_used_without_a_network(hub, tmp_path):
    address, seen = hub
    printed = download(address, tmp_path, "imagenet", "hf://someone/model", "hf://no/body")
    expected = golden.weight("head.1.weight", (1000, 256)).T
    for index in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"{index}.npy"), expected)
    assert printed.startswith("`weights='hf://no/body'` could not be loaded: no/body is not in")
    gets = [(name, start > 0) for method, name, start in seen if method == "GET"]
    assert gets == [
        (REPOSITORIES[0], False),
        (REPOSITORIES[0], True),  # resumes where it broke off
        (REPOSITORIES[1], False),
    ]
    seen.clear()
    for file in tmp_path.glob("*.npy"):
        file.unlink()
    printed = download(address, tmp_path, "imagenet", "hf://a/b", HF_HUB_OFFLINE="1")
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), expected)
    assert printed.startswith("`weights='hf://a/b'` could not be loaded: a/b is not in the cache")
    assert not seen
    assert len(list(tmp_path.glob("*.npy"))) == 1


@pytest.mark.parametrize("name", ["RemoteProtocolError", "ReadError"])
@pytest.mark.parametrize("failures", [4, 5])
def test_transfer_that_breaks_off_is_tried_five_times(failures, name, monkeypatch):
    """Older versions of the hub's client do not resume by themselves."""
    broken, asked = type(name, (Exception,), {}), []

    def hf_hub_download(*arguments):
        asked.append(arguments)
        if len(asked) <= failures:
            raise broken("peer closed connection")
        return "cache/file"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    if failures < 5:
        assert sources.download("owner/name", "file", "imagenet") == pathlib.Path("cache/file")
    else:
        with pytest.raises(ConnectionError, match=f"Received: {name}: peer closed"):
            sources.download("owner/name", "file", "imagenet")
    assert asked == 5 * [("owner/name", "file")]


def test_missing_network_is_a_connection_error(tmp_path):
    printed = download("http://127.0.0.1:9", tmp_path, "imagenet")  # nothing listens there
    assert printed.startswith("`weights='imagenet'` could not be loaded: timm/crossvit_9_dagger_2")
    assert ALLOWED in printed
    assert not list(tmp_path.glob("*.npy"))
