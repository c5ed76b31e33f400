"""Asks a TensorFlow Serving what is on pictures.

    python client.py photo.jpg cat.png
    python client.py photo.jpg --protocol grpc --server gpu-box:8500 --model crossvit

Needs no other file of this project: copy it where the pictures are. REST needs Python only;
gRPC needs the package tensorflow-serving-api, which brings TensorFlow.
"""

import argparse
import base64
import http.client
import json
import pathlib
import sys
import urllib.parse

PORTS = {"rest": 8501, "grpc": 8500}


class ServerError(Exception):
    """No answer, or a refusal, in words for the user."""


def ask_rest(server, model, files, timeout):
    """What the server says to picture files, through REST.

    Args:
        server: "host:port".
        model: The model's name there.
        files: The files' bytes, one or more.
        timeout: Seconds to wait.

    Returns:
        For each file a list of `(class, score)`, the highest score first; the class is "" if
        the file is no picture.

    Raises:
        ServerError: If there is no server, no such model, or the server refuses.
    """
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"signature_name": "classify_bytes", "instances": instances})
    connection = http.client.HTTPConnection(server, timeout=timeout)
    try:
        connection.request(
            "POST", f"/v1/models/{urllib.parse.quote(model, safe='')}:predict", body
        )
        response = connection.getresponse()
        status, answer = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"no answer from {server} (REST): {error}") from error
    finally:
        connection.close()
    try:
        answer = json.loads(answer)
        if status == 200:
            rows = answer["predictions"]
            return [list(zip(row["classes"], row["scores"], strict=True)) for row in rows]
        reason = answer["error"]
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{server} is no TensorFlow Serving (REST)") from error
    raise _refusal(server, model, status == 404, reason)


def ask_grpc(server, model, files, timeout):
    """The same through gRPC; arguments, result and errors as of `ask_rest`."""
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise ServerError(
            f"{error.name} is not installed: pip install tensorflow-serving-api, "
            "or use --protocol rest"
        ) from error
    import tensorflow as tf  # the stubs have imported it already

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "classify_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, shape=[len(files)]))
    with grpc.insecure_channel(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            outputs = stub.Predict(request, timeout=timeout).outputs
        except grpc.RpcError as error:
            code, reason = error.code(), error.details()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ServerError(f"no answer from {server} (gRPC): {reason}") from error
            raise _refusal(server, model, code == grpc.StatusCode.NOT_FOUND, reason) from error
    classes, scores = (tf.make_ndarray(outputs[name]).tolist() for name in ("classes", "scores"))
    return [
        [(name.decode(), score) for name, score in zip(*row, strict=True)]
        for row in zip(classes, scores, strict=True)
    ]


def _refusal(server, model, missing, reason):
    what = f"has no model {model!r}" if missing else "refuses the request"
    return ServerError(f"{server} {what}: {reason}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="JPEG, PNG, GIF, BMP or WebP")
    parser.add_argument("--protocol", choices=PORTS, default="rest")
    parser.add_argument("--server", help="HOST:PORT, by default localhost and the usual port")
    parser.add_argument("--model", default="crossvit", help="its name in models.config")
    parser.add_argument("--batch-size", type=int, default=8, help="files in a request, at most")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for a request")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch-size must be positive. Received: {arguments.batch_size}")
    ask = {"rest": ask_rest, "grpc": ask_grpc}[arguments.protocol]
    server = arguments.server or f"localhost:{PORTS[arguments.protocol]}"
    bad = 0
    for start in range(0, len(arguments.files), arguments.batch_size):
        paths = arguments.files[start : start + arguments.batch_size]
        try:
            files = [path.read_bytes() for path in paths]
            rows = ask(server, arguments.model, files, arguments.timeout)
        except (ServerError, OSError) as error:
            sys.exit(f"client.py: {error}")
        for path, row in zip(paths, rows, strict=True):
            bad += _show(path, row)
    sys.exit(1 if bad else 0)


def _show(path, row):
    """Prints one answer; returns whether the file is no picture."""
    if row[0][0] == "":
        print(f"{path}: no whole JPEG, PNG, GIF, BMP or WebP image, or too large", file=sys.stderr)
        return True
    print(path)
    for name, score in row:
        print(f"  {score:8.2%}  {name}")
    return False


if __name__ == "__main__":
    main()
