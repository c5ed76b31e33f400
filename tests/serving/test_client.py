"""recipes/serving/client.py from end to end, against servers on the loopback interface."""

import concurrent.futures
import contextlib
import copy
import http.server
import json
import os
import re
import runpy
import socket
import sys
import threading
import types

import numpy as np
import pytest

from benchmarks.local_server import serve_grpc
from tests import base
from tests.export.helpers import LABELS, picture, probabilities
from tests.serving.rest import serve_rest

CLIENT = base.ROOT / "recipes" / "serving" / "client.py"
PROTOCOLS = pytest.mark.parametrize("protocol", ["rest", "grpc"])


def ask(protocol):
    return runpy.run_path(str(CLIENT))[f"ask_{protocol}"]


def run(monkeypatch, capsys, *arguments):
    """What the client prints, what it complains of, and its exit status."""
    monkeypatch.setattr(sys, "argv", ["client.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CLIENT), run_name="__main__")
    said = capsys.readouterr()
    # If the status is a message, Python prints it and exits with 1.
    status = ended.value.code
    return said.out, said.err + (status if isinstance(status, str) else ""), status


def write(folder, count):
    """Image files of all formats and several sizes, as `{path: bytes}`."""
    files = {}
    for index in range(count):
        file_format = ("JPEG", "PNG", "GIF", "BMP")[index % 4]
        path = folder / f"{index} a.{file_format.lower()}"
        path.write_bytes(picture(index, file_format, 40 + 7 * index, 60))
        files[path] = path.read_bytes()
    return files


@contextlib.contextmanager
def always(status, answer):
    """A server that says the same to every request, bytes; yields "127.0.0.1:port"."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@PROTOCOLS
def test_prints_the_top_classes(classifier, addresses, tmp_path, monkeypatch, capsys, protocol):
    """Five files in requests of two: each one's classes and percentages, in order."""
    files = write(tmp_path, 5)
    out, err, status = run(
        monkeypatch,
        capsys,
        *(*files, "--protocol", protocol, "--server", addresses[protocol], "--batch-size", 2),
    )
    lines = []
    for path, scores in zip(files, probabilities(classifier, files.values()), strict=True):
        best = np.argsort(-scores)[:3]
        lines += [str(path), *(f"  {scores[index]:8.2%}  {LABELS[index]}" for index in best)]
    assert out.splitlines() == lines
    assert (err, status) == ("", 0)


@PROTOCOLS
def test_a_file_that_is_no_picture(addresses, tmp_path, monkeypatch, capsys, protocol):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(picture())
    bad.write_bytes(picture()[:-30])
    out, err, status = run(
        monkeypatch,
        capsys,
        *(bad, good, "--protocol", protocol, "--server", addresses[protocol]),
    )
    assert err == f"{bad}: no whole JPEG, PNG, GIF, BMP or WebP image, or too large\n"
    assert out.splitlines()[0] == str(good)
    assert len(out.splitlines()) == 4
    assert status == 1


@PROTOCOLS
def test_no_server(tmp_path, monkeypatch, capsys, protocol):
    path, server = next(iter(write(tmp_path, 1))), f"127.0.0.1:{free_port()}"
    out, err, _ = run(
        monkeypatch, capsys, path, "--protocol", protocol, "--server", server, "--timeout", 20
    )
    assert out == ""
    assert re.match(rf"client\.py: no answer from {server} \({protocol}\): ", err, re.IGNORECASE)


@pytest.mark.parametrize("host", ["a..b", 70 * "a", "a b"])
def test_a_name_that_no_host_can_have(tmp_path, monkeypatch, capsys, host):
    path, server = next(iter(write(tmp_path, 1))), f"{host}:8501"
    out, err, _ = run(monkeypatch, capsys, path, "--server", server)
    assert err.startswith(f"client.py: no answer from {server} (REST): ")
    assert (out, len(err.splitlines())) == ("", 1)


def test_an_answer_that_is_not_http(tmp_path, monkeypatch, capsys):
    """As of a gRPC port, which sends binary frames."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"\0\0\6\4\0\0\0\0\n")

        threading.Thread(target=answer, daemon=True).start()
        server = f"127.0.0.1:{listener.getsockname()[1]}"
        path = next(iter(write(tmp_path, 1)))
        _, err, _ = run(monkeypatch, capsys, path, "--server", server, "--timeout", 20)
    assert err == f"client.py: {server} is not TensorFlow Serving (REST)"


@PROTOCOLS
def test_no_such_model(addresses, tmp_path, monkeypatch, capsys, protocol):
    path, server = next(iter(write(tmp_path, 1))), addresses[protocol]
    _, err, _ = run(
        monkeypatch, capsys, path, "--protocol", protocol, "--server", server, "--model", "resnet"
    )
    assert err == (
        f"client.py: {server} has no model 'resnet': "
        "Servable not found for request: Latest(resnet)"
    )


@PROTOCOLS
def test_no_such_signature(servable, tmp_path, monkeypatch, capsys, protocol):
    """A model that was exported by another program."""
    other = copy.copy(servable)
    other._signatures = {"serving_default": servable._signatures["serving_default"]}
    path = next(iter(write(tmp_path, 1)))
    with {"rest": serve_rest, "grpc": serve_grpc}[protocol](other) as server:
        _, err, _ = run(monkeypatch, capsys, path, "--protocol", protocol, "--server", server)
    message = 'Serving signature key "classify_bytes" not found.'
    assert err == f"client.py: {server} refuses the request: {message}"


def test_something_else_answers(tmp_path, monkeypatch, capsys):
    path = next(iter(write(tmp_path, 1)))
    with always(501, b"<html>Not implemented</html>") as server:
        _, err, _ = run(monkeypatch, capsys, path, "--server", server)
    assert err == f"client.py: {server} is not TensorFlow Serving (REST)"


@pytest.mark.parametrize(
    "predictions",
    [
        None,
        [],
        2 * [{"classes": ["a"], "scores": [1]}],  # for one file
        [[0.1, 0.9]],
        [{"probabilities": [1]}],
        [{"classes": [], "scores": []}],
        [{"classes": ["a", "b"], "scores": [1]}],
        [{"classes": ["a"], "scores": [None]}],
    ],
)
def test_predictions_of_another_form(tmp_path, monkeypatch, capsys, predictions):
    path = next(iter(write(tmp_path, 1)))
    with always(200, json.dumps({"predictions": predictions}).encode()) as server:
        out, err, _ = run(monkeypatch, capsys, path, "--server", server)
    written = "that `crossvit export --format saved_model` did not write"
    assert (out, err) == ("", f"client.py: {server} has a model 'crossvit' {written}")


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"probabilities": np.ones((1, 2), "float32")},
        {"classes": np.array([[b"a"]]), "scores": np.ones((2, 1), "float32")},  # for one file
        {"classes": np.array([[b"a", b"b"]]), "scores": np.ones((1, 1), "float32")},
        {"classes": np.ones((1, 1), "float32"), "scores": np.ones((1, 1), "float32")},
    ],
)
def test_outputs_of_another_form(tmp_path, monkeypatch, capsys, outputs):
    """Through gRPC, as predictions above through REST."""
    path = next(iter(write(tmp_path, 1)))
    other = types.SimpleNamespace(predict=lambda model, signature, inputs: outputs)
    with serve_grpc(other) as server:
        out, err, _ = run(
            monkeypatch, capsys, path, "--protocol", "grpc", "--server", server, "--timeout", 60
        )
    written = "that `crossvit export --format saved_model` did not write"
    assert (out, err) == ("", f"client.py: {server} has a model 'crossvit' {written}")


def test_no_such_file(tmp_path, monkeypatch, capsys):
    """The others are answered, whether they come in a request of their own or not."""
    path, known = tmp_path / "absent.png", [*write(tmp_path, 2)]
    answer = {"classes": ["ant"], "scores": [0.5]}
    with always(200, json.dumps({"predictions": [answer]}).encode()) as server:
        given = path, known[0], path, path, known[1]
        out, err, status = run(
            monkeypatch, capsys, *given, "--server", server, "--batch-size", "2"
        )
    assert out == "".join(f"{file}\n    50.00%  ant\n" for file in known)
    assert err == f"client.py: [Errno 2] No such file or directory: '{path}'\n" * 3
    assert status == 1


def test_a_reader_that_ends_before_the_client(tmp_path, monkeypatch, capsys):
    """As `head` does."""
    path = next(iter(write(tmp_path, 1)))
    nobody, pipe = os.pipe()
    os.close(nobody)
    answer = json.dumps({"predictions": [{"classes": ["ant"], "scores": [0.5]}]}).encode()
    with open(pipe, "w") as closed, always(200, answer) as server:
        monkeypatch.setattr(sys, "stdout", closed)
        _, err, status = run(monkeypatch, capsys, path, "--server", server)
    assert (err, status) == ("", 1)


def test_grpc_without_its_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    path = next(iter(write(tmp_path, 1)))
    _, err, _ = run(monkeypatch, capsys, path, "--protocol", "grpc")
    assert "pip install tensorflow-serving-api, or use --protocol rest" in err


def test_batch_size(monkeypatch, capsys):
    _, err, status = run(monkeypatch, capsys, "a.png", "--batch-size", 0)
    assert "--batch-size must be positive. Received: 0" in err
    assert status == 2


@pytest.mark.parametrize("seconds", ["-1.0", "0.0", "nan", "inf"])
def test_timeout(monkeypatch, capsys, seconds):
    _, err, status = run(monkeypatch, capsys, "a.png", "--timeout", seconds)
    assert err.endswith(f"--timeout must be in (0, 86400] seconds. Received: {seconds}\n")
    assert status == 2


@pytest.mark.parametrize(
    "server", ["http://localhost:1", "localhost", "localhost:x", ":8501", "localhost:65536", ""]
)
def test_server(monkeypatch, capsys, server):
    _, err, status = run(monkeypatch, capsys, "a.png", "--server", server)
    wanted = "--server must be HOST:PORT, such as localhost:8501, without http://. Received: "
    assert err.splitlines()[-1].endswith(wanted + server)
    assert status == 2


def test_rest_needs_python_only(addresses, tmp_path):
    path = next(iter(write(tmp_path, 1)))
    code = (
        "import runpy, sys; client, *sys.argv[1:] = sys.argv[1:]\n"
        "try: runpy.run_path(client, run_name='__main__')\n"
        "except SystemExit as ended: print('status', ended.code)\n"
        "print({'numpy', 'tensorflow', 'keras', 'grpc'} & set(sys.modules))"
    )
    said = base.run_python(code, CLIENT, path, "--server", addresses["rest"]).splitlines()
    assert said[0] == str(path)
    assert said[-2:] == ["status 0", "set()"]


@PROTOCOLS
def test_32_requests_at_once(classifier, addresses, protocol):
    """Each client sends a batch of its own and gets the answer to that one."""
    pairs = [(picture(2 * seed), picture(2 * seed + 1)) for seed in range(32)]
    scores = probabilities(classifier, [file for pair in pairs for file in pair])
    expected = np.reshape(scores, (32, 2, -1))
    start = threading.Barrier(32)

    def send(files):
        start.wait()
        return ask(protocol)(addresses[protocol], "crossvit", files, 60)

    batches = [[first, b"none", last] for first, last in pairs]
    with concurrent.futures.ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(send, batches))
    for (first, none, last), scores in zip(answers, expected, strict=True):
        assert none == [("", 0.0)] * 3
        for row, probability in zip((first, last), scores, strict=True):
            order = np.argsort(-probability)[:3]
            assert [name for name, _ in row] == [LABELS[index] for index in order]
            np.testing.assert_allclose([s for _, s in row], probability[order], atol=1e-5)
