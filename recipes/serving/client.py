"""Asks TensorFlow Serving, Triton or KServe what is in images.

    python client.py photo.jpg cat.png
    python client.py photo.jpg --protocol grpc --server gpu-box:8500 --model crossvit
    python client.py photo.jpg --api v2 --model crossvit_15_dagger

Needs no other file of this project: copy it to where the images are. `--api v1`, TensorFlow
Serving's, needs only Python and, with gRPC, the package tensorflow-serving-api, which brings
TensorFlow. `--api v2`, Triton's, needs numpy and pillow, since Triton decodes no images and
`read_picture` does so here; with gRPC also tritonclient[grpc].
"""

import argparse
import base64
import contextlib
import http.client
import io
import json
import math
import os
import pathlib
import struct
import sys
import urllib.parse

PORTS = {("v1", "rest"): 8501, ("v1", "grpc"): 8500, ("v2", "rest"): 8000, ("v2", "grpc"): 8001}
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
MAX_PIXELS = 2**26  # as for TensorFlow Serving's model
BMP_MASKS = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)  # likewise: red, green and blue
LONGEST = 86400  # seconds for a request, a day


class ServerError(Exception):
    """No answer, or a refusal, in words for the user."""


def ask_rest(server, model, files, timeout):
    """What TensorFlow Serving says about image files, through REST.

    Args:
        server: "host:port".
        model: The model's name there.
        files: The files' bytes, one or more.
        timeout: Seconds to wait.

    Returns:
        For each file a list of `(class, score)`, the highest score first; the class is "" if
        the file is not an image.

    Raises:
        ServerError: If there is no server, no such model, the server refuses, or its model is
            not one of `crossvit export`.
    """
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"signature_name": "classify_bytes", "instances": instances})
    path = f"/v1/models/{urllib.parse.quote(model, safe='')}:predict"
    rows = _http("TensorFlow Serving", server, model, path, timeout, "predictions", body)
    with _reading(server, model, "saved_model"):
        return [_pairs(row["classes"], row["scores"]) for _, row in zip(files, rows, strict=True)]


def _http(kind, server, model, path, timeout, key, body=None, headers=None):
    """What is at `key` in the JSON object that the server returns."""
    try:
        connection = http.client.HTTPConnection(server, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body, headers or {})
            response = connection.getresponse()
            status, answer = response.status, response.read()
    # A UnicodeError or InvalidURL: no host can have such a name.
    except (OSError, UnicodeError, http.client.InvalidURL, http.client.IncompleteRead) as error:
        raise ServerError(f"no answer from {server} (REST): {error}") from error
    except http.client.HTTPException as error:  # an answer, but not in HTTP
        raise ServerError(f"{server} is not {kind} (REST)") from error
    try:
        answer = json.loads(answer)
        if status == 200:
            return answer[key] if key else answer
        reason = answer["error"]
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{server} is not {kind} (REST)") from error
    raise _refusal(server, model, status == 404, reason)


def ask_grpc(server, model, files, timeout):
    """The same through gRPC; arguments, result and errors as in `ask_rest`."""
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
    with _reading(server, model, "saved_model"):
        found = (tf.make_ndarray(outputs[name]).tolist() for name in ("classes", "scores"))
        return [
            _pairs([name.decode() for name in names], scores)
            for _, names, scores in zip(files, *found, strict=True)
        ]


def ask_v2_rest(server, model, files, timeout):
    """What Triton says about image files, through REST; otherwise as `ask_rest`."""
    path = f"/v2/models/{urllib.parse.quote(model, safe='')}"
    about = "Triton", server, model

    def infer(name, images, top_k):
        raw = images.astype("<f4").tobytes()
        given = {"name": name, "shape": images.shape, "datatype": "FP32"}
        given["parameters"] = {"binary_data_size": len(raw)}
        wanted = {"name": "probabilities", "parameters": {"classification": top_k}}
        head = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        headers["Content-Type"] = "application/octet-stream"
        (output,) = _http(*about, f"{path}/infer", timeout, "outputs", head + raw, headers)
        return output["data"]

    return _ask_v2(_http(*about, f"{path}/config", timeout, ""), server, model, files, infer)


def ask_v2_grpc(server, model, files, timeout):
    """The same through gRPC; arguments, result and errors as in `ask_rest`."""
    try:
        import tritonclient.grpc as triton
    except ImportError as error:
        raise ServerError(
            f"{error.name} is not installed: pip install tritonclient[grpc], "
            "or use --protocol rest"
        ) from error

    def infer(name, images, top_k):
        given = triton.InferInput(name, list(images.shape), "FP32")
        given.set_data_from_numpy(images)
        wanted = triton.InferRequestedOutput("probabilities", class_count=top_k)
        answer = client.infer(model, [given], outputs=[wanted], client_timeout=timeout)
        return [text.decode() for text in answer.as_numpy("probabilities").ravel()]

    with triton.InferenceServerClient(server) as client:
        try:
            known = client.get_model_config(model, as_json=True, client_timeout=timeout)
            return _ask_v2(known["config"], server, model, files, infer)
        except triton.InferenceServerException as error:
            code, reason = error.status().removeprefix("StatusCode."), error.message()
            if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise ServerError(f"no answer from {server} (gRPC): {reason}") from error
            raise _refusal(server, model, code == "NOT_FOUND", reason) from error


def _ask_v2(config, server, model, files, infer):
    """Prepares the files as a model's configuration says, and reads "score:index:class"."""
    try:
        import numpy as np
        import PIL  # noqa: F401
    except ImportError as error:
        raise ServerError(
            f"{error.name} is not installed: pip install numpy pillow, or use --api v1"
        ) from error
    with _reading(server, model, "triton"):
        inputs = config["input"]
        values = {key: value["string_value"] for key, value in config["parameters"].items()}
        size, top_k = [int(side) for side in inputs[0]["dims"]], int(values["top_k"])
        reading = size, float(values["crop_ratio"]), values["exif_orientation"] == "true"
    if len(inputs) != 1:
        raise ServerError(f"{model!r} takes {len(inputs)} pictures at once, this client sends one")
    rows, images = [[("", 0.0)] for _ in files], {}
    for index, data in enumerate(files):
        with contextlib.suppress(ValueError):
            images[index] = read_picture(data, *reading)
    if not images:
        return rows
    batch = np.stack(list(images.values()))
    with _reading(server, model, "triton"):
        # As many classes as came, which may be fewer than asked for.
        answers = np.reshape(infer(inputs[0]["name"], batch, top_k), (len(images), -1))
        for index, answer in zip(images, answers, strict=True):
            scores, _, names = zip(*(text.split(":", 2) for text in answer), strict=True)
            rows[index] = _pairs(names, scores)
    return rows


@contextlib.contextmanager
def _reading(server, model, form):
    """A context in which what the server says is read; of another form it is a `ServerError`."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ServerError(
            f"{server} has a model {model!r} that `crossvit export --format {form}` did not write"
        ) from error


def _pairs(names, scores):
    """The `(class, score)` of one file; `ValueError` if there are none."""
    pairs = [(name, float(score)) for name, score in zip(names, scores, strict=True)]
    if not pairs:
        raise ValueError("no classes")
    return pairs


def read_picture(data, size, crop_ratio, exif_orientation):
    """The pixels of an image file as the model was evaluated on them.

    The first frame, as RGB without alpha; of 16 bits the upper 8. The shorter side becomes
    `floor(size / crop_ratio)` pixels, bicubic with antialiasing, and the centre is kept.

    Args:
        data: The file's bytes.
        size: `(height, width, channels)` of the model's input, 3 channels or 1 for grey.
        crop_ratio: Share of the resized image's shorter side that is kept, in (0, 1].
        exif_orientation: Whether the image is turned upright as its EXIF says.

    Returns:
        float32 `(height, width, channels)`, 0..255.

    Raises:
        ValueError: If the file is not a whole image, has more than `MAX_PIXELS` pixels, or is a
            BMP that TensorFlow Serving's model does not read either: compressed, or not of 8, 24
            or 32 bits.
    """
    import numpy as np

    image = _crop(_open(data, exif_orientation), size[:2], crop_ratio)
    pixels = np.asarray(image).astype("float32")
    return pixels if size[2] == 3 else pixels @ np.array([[0.2989], [0.587], [0.114]], "float32")


def _crop(image, wanted, crop_ratio):
    """Resizes an image and keeps the centre; only what is kept is computed."""
    from PIL import Image

    sides = image.size[::-1]
    least = [math.floor(side / crop_ratio) for side in wanted]
    if least[0] == least[1]:
        resized = [side * least[0] // min(sides) for side in sides]
    else:
        shrink = min(have / want for have, want in zip(sides, least, strict=True))
        resized = [round(side / shrink) for side in sides]
    (top, bottom), (left, right) = map(_span, sides, resized, wanted)
    reach = 2 * max(sides[0] / resized[0], 1) + 1  # of the kernel, and one for rounding
    above, below = max(math.floor(top - reach), 0), min(math.ceil(bottom + reach), sides[0])
    image = image.crop((0, above, sides[1], below))
    # Along the rows, rounded, then along the columns: in one step PIL starts with the cheaper one.
    bicubic, (height, width) = Image.Resampling.BICUBIC, wanted
    image = image.resize((width, below - above), bicubic, (left, 0, right, below - above))
    return image.resize((width, height), bicubic, (0, top - above, width, bottom - above))


def _span(side, resized, wanted):
    """Where the middle `wanted` of `resized` pixels begin and end along the file's side."""
    first = round((resized - wanted) / 2)
    return first * side / resized, min((first + wanted) * side / resized, side)


def _open(data, exif_orientation):
    """An image file as a PIL image in RGB, upright if asked for."""
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # PIL's own limit only warns
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if math.prod(image.size) > MAX_PIXELS:
            raise ValueError(f"{math.prod(image.size)} pixels, more than {MAX_PIXELS}")
        if image.format == "BMP" and not _is_read_bmp(data, image.size):
            raise ValueError("a BMP must be whole, uncompressed and of 8, 24 or 32 bits")
        image.load()
    except Exception as error:  # PIL raises many kinds of error for a broken file
        raise ValueError(f"not a whole image, or too large: {error}") from error
    turn = _turn(image) if exif_orientation else None
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _is_read_bmp(data, size):
    """Whether TensorFlow Serving's model reads a BMP; PIL also reads others."""
    pixels_at, header_size = struct.unpack_from("<II", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 28)
    plain = compression == 0 or (compression == 3 and data[54:66] == BMP_MASKS)
    row = (size[0] * bits + 31) // 32 * 4
    whole = len(data) == pixels_at + row * size[1]
    return header_size >= 40 and bits in (8, 24, 32) and plain and whole


def _turn(image):
    """How to turn a PIL image upright as its EXIF says, or `None` if it is."""
    from PIL import Image

    turns = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
    exif, number = image.info.get("exif"), 1
    if isinstance(exif, bytes):  # in a PNG, a text that is called exif is a str
        with contextlib.suppress(struct.error):  # a broken EXIF says nothing
            number = _orientation(exif.removeprefix(b"Exif\0\0"))
    return Image.Transpose[turns.split()[number - 2]] if number > 1 else None


def _orientation(exif):
    """The orientation, 1 to 8, in an EXIF that begins with its TIFF header; 1 if it has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    (first,) = struct.unpack_from(f"{order}I", exif, 4)
    (entries,) = struct.unpack_from(f"{order}H", exif, first)
    found = [1]
    for at in range(first + 2, min(first + 2 + 12 * entries, len(exif) - 11), 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", exif, at)
        if tag == 0x0112 and kind in (3, 4) and count == 1:  # a SHORT or a LONG
            found += struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, at + 8)
    return max(number for number in found if number <= 8)


def _refusal(server, model, missing, reason):
    what = f"has no model {model!r}" if missing else "refuses the request"
    return ServerError(f"{server} {what}: {reason}")


ASK = {
    ("v1", "rest"): ask_rest,
    ("v1", "grpc"): ask_grpc,
    ("v2", "rest"): ask_v2_rest,
    ("v2", "grpc"): ask_v2_grpc,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="JPEG, PNG, GIF, BMP or WebP")
    parser.add_argument("--protocol", choices=["rest", "grpc"], default="rest")
    parser.add_argument(
        "--api",
        choices=["v1", "v2"],
        default="v1",
        help="v1: TensorFlow Serving, and KServe's V1; v2: Triton, and KServe's V2 with Triton",
    )
    parser.add_argument("--server", help="HOST:PORT, by default localhost and the usual port")
    parser.add_argument("--model", default="crossvit", help="its name there")
    parser.add_argument("--batch-size", type=int, default=8, help="files in a request, at most")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for a request")
    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # the name of a file may not be UTF-8
    if arguments.batch_size < 1:
        parser.error(f"--batch-size must be positive. Received: {arguments.batch_size}")
    if not 0 < arguments.timeout <= LONGEST:
        parser.error(f"--timeout must be in (0, {LONGEST}] seconds. Received: {arguments.timeout}")
    if arguments.server is not None and not _is_address(arguments.server):
        parser.error(
            "--server must be HOST:PORT, such as localhost:8501, without http://. "
            f"Received: {arguments.server}"
        )
    bad = 0
    try:
        for start in range(0, len(arguments.files), arguments.batch_size):
            bad += _ask(arguments, arguments.files[start : start + arguments.batch_size])
        sys.stdout.flush()
    except ServerError as error:
        sys.exit(f"client.py: {error}")
    except BrokenPipeError:  # what read the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        bad = 1
    sys.exit(1 if bad else 0)


def _ask(arguments, paths):
    """Prints the answers to one request; returns how many of its files have none."""
    chosen = arguments.api, arguments.protocol
    server = arguments.server or f"localhost:{PORTS[chosen]}"
    files, bad = [], 0
    for path in paths:
        try:
            files.append((path, path.read_bytes()))
        except OSError as error:
            print(f"client.py: {error}", file=sys.stderr)
            bad += 1
    if files:
        images = [data for _, data in files]
        rows = ASK[chosen](server, arguments.model, images, arguments.timeout)
        bad += sum(_show(path, row) for (path, _), row in zip(files, rows, strict=True))
    return bad


def _is_address(server):
    host, _, port = server.rpartition(":")
    return bool(host) and "/" not in host and port.isdecimal() and 0 < int(port) < 2**16


def _show(path, row):
    """Prints one answer; returns whether the file is not an image."""
    if row[0][0] == "":
        print(f"{path}: no whole JPEG, PNG, GIF, BMP or WebP image, or too large", file=sys.stderr)
        return True
    print(path)
    for name, score in row:
        print(f"  {score:8.2%}  {name}")
    return False


if __name__ == "__main__":
    main()
