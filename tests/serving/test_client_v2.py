"""recipes/serving/client.py with `--api v2`, against a stand-in for Triton, and its pixels."""

import re
import runpy
import struct
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL.PngImagePlugin import PngInfo

from keras_crossvit.data.images import read_images
from keras_crossvit.export import export_triton
from tests.data_room.image_files import decoded, encoded, noise, photo
from tests.data_room.test_formats import EXIF_FORMATS, tiff, with_exif
from tests.export.helpers import LABELS, picture, probabilities
from tests.export.triton_model import TritonModel
from tests.serving import triton as stand_in
from tests.serving.test_client import CLIENT, free_port, run, write
from tests.serving.triton import serve_v2_grpc, serve_v2_rest

PROTOCOLS = pytest.mark.parametrize("protocol", ["rest", "grpc"])
CROP_RATIO = 0.8  # not the default, so that it has to come from the server


@pytest.fixture(scope="module")
def triton(classifier, tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    options = {"top_k": 3, "crop_ratio": CROP_RATIO, "max_batch_size": 4}
    return TritonModel(export_triton(classifier, repository, LABELS, **options).parent)


@pytest.fixture(scope="module")
def v2(triton):
    """The address of each protocol."""
    with serve_v2_rest(triton) as rest, serve_v2_grpc(triton) as grpc:
        yield {"rest": rest, "grpc": grpc}


@pytest.fixture
def ask(v2, monkeypatch, capsys):
    """Runs the client; its output, its complaints and its status."""

    def send(protocol, *arguments):
        options = ("--api", "v2", "--protocol", protocol, "--server", v2[protocol])
        return run(monkeypatch, capsys, *options, *arguments)

    return send


@PROTOCOLS
def test_prints_the_top_classes(classifier, ask, tmp_path, protocol):
    """Five files in requests of two: each one's classes and percentages, in order."""
    files = write(tmp_path, 5)
    out, err, status = ask(protocol, *files, "--batch-size", 2)
    assert (err, status) == ("", 0)
    lines = iter(out.splitlines())
    wanted = probabilities(classifier, files.values(), CROP_RATIO)
    for path, scores in zip(files, wanted, strict=True):
        assert next(lines) == str(path)
        for index in np.argsort(-scores)[:3]:
            score, name = re.fullmatch(r" +([\d.]+)%  (.+)", next(lines)).groups()
            assert name == LABELS[index]
            # A few pixels are rounded the other way; see TestPixels.
            assert float(score) == pytest.approx(100 * scores[index], abs=0.05)
    assert next(lines, None) is None


@PROTOCOLS
def test_files_that_are_no_pictures(ask, tmp_path, protocol):
    """Among images and alone: each is named, and the others are answered."""
    good, cut, text = (tmp_path / name for name in ("good.png", "cut.png", "text.jpg"))
    good.write_bytes(picture())
    cut.write_bytes(picture()[:-30])
    text.write_bytes(b"text")
    complaint = "{}: no whole JPEG, PNG, GIF, BMP or WebP image, or too large\n"
    out, err, status = ask(protocol, cut, good, text)
    assert err == complaint.format(cut) + complaint.format(text)
    assert out.splitlines()[0] == str(good)
    assert (len(out.splitlines()), status) == (4, 1)
    out, err, status = ask(protocol, cut)
    assert (out, err, status) == ("", complaint.format(cut), 1)


@PROTOCOLS
def test_no_such_model(v2, ask, tmp_path, protocol):
    path = next(iter(write(tmp_path, 1)))
    _, err, _ = ask(protocol, path, "--model", "resnet")
    assert err == (
        f"client.py: {v2[protocol]} has no model 'resnet': "
        "Request for unknown model: 'resnet' is not found"
    )


@PROTOCOLS
def test_more_files_than_the_server_takes(v2, ask, tmp_path, protocol):
    _, err, _ = ask(protocol, *write(tmp_path, 5))
    assert err == (
        f"client.py: {v2[protocol]} refuses the request: "
        "inference request batch-size must be <= 4 for 'crossvit'"
    )


@PROTOCOLS
def test_no_server(tmp_path, monkeypatch, capsys, protocol):
    path, server = next(iter(write(tmp_path, 1))), f"127.0.0.1:{free_port()}"
    options = ("--api", "v2", "--protocol", protocol, "--server", server, "--timeout", 20)
    out, err, _ = run(monkeypatch, capsys, path, *options)
    said = {"rest": "REST", "grpc": "gRPC"}[protocol]
    assert err.startswith(f"client.py: no answer from {server} ({said}): ")
    assert (out, len(err.splitlines())) == ("", 1)


def test_tensorflow_serving_answers(addresses, tmp_path, monkeypatch, capsys):
    path, server = next(iter(write(tmp_path, 1))), addresses["rest"]
    _, err, _ = run(monkeypatch, capsys, path, "--api", "v2", "--server", server)
    assert err == f"client.py: {server} is not Triton (REST)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.parameters.clear(),
            "has a model 'crossvit' that `crossvit export --format triton` did not write",
        ),
        (
            lambda config: config.input.add().CopyFrom(config.input[0]),
            "'crossvit' takes 2 pictures at once, this client sends one",
        ),
    ],
)
def test_a_model_of_another_kind(triton, tmp_path, monkeypatch, capsys, change, message):
    path = next(iter(write(tmp_path, 1)))
    config = type(triton.config).FromString(triton.config.SerializeToString())
    change(config)
    monkeypatch.setattr(triton, "config", config)
    with serve_v2_rest(triton) as server:
        _, err, _ = run(monkeypatch, capsys, path, "--api", "v2", "--server", server)
    assert err.endswith(message)
    assert len(err.splitlines()) == 1


@PROTOCOLS
def test_fewer_classes_than_the_configuration_asks_for(
    triton, ask, tmp_path, monkeypatch, protocol
):
    """Each of three files gets the two classes that are its own."""
    texts = np.array([[b"0.9:0:a", b"0.1:1:b"], [b"0.8:2:c:d", b"0.2:0:a"], [b"0.7:1:b", b"0:2:"]])
    monkeypatch.setattr(triton, "classify", lambda *arguments: texts)
    files = write(tmp_path, 3)
    out, err, status = ask(protocol, *files)
    assert (err, status) == ("", 0)
    first, second, third = map(str, files)
    assert [line.strip() for line in out.splitlines()] == [
        *(first, "90.00%  a", "10.00%  b"),
        *(second, "80.00%  c:d", "20.00%  a"),
        *(third, "70.00%  b", "0.00%"),
    ]


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [{"name": "probabilities"}],
        [{"data": []}],
        [{"data": [0.1, 0.9]}],
        [{"data": ["0.5:0", "0.5:0"]}],  # without names
        [{"data": ["none:0:a", "0.5:0:a"]}],
        [{"data": ["0.5:0:a", "0.3:1:b", "0.2:2:c"]}],  # for two files
    ],
)
def test_outputs_of_another_form(v2, ask, tmp_path, monkeypatch, outputs):
    answer = stand_in._answer

    def other(model, method, path, *request):
        known = answer(model, method, path, *request)
        return (200, {"outputs": outputs}) if path.endswith("/infer") else known

    monkeypatch.setattr(stand_in, "_answer", other)
    out, err, _ = ask("rest", *write(tmp_path, 2))
    written = "that `crossvit export --format triton` did not write"
    assert (out, err) == ("", f"client.py: {v2['rest']} has a model 'crossvit' {written}")


@pytest.mark.parametrize(
    ("protocol", "hidden", "message"),
    [
        ("grpc", "tritonclient.grpc", "pip install tritonclient[grpc], or use --protocol rest"),
        ("rest", "PIL", "PIL is not installed: pip install numpy pillow, or use --api v1"),
    ],
)
def test_without_its_packages(ask, tmp_path, monkeypatch, protocol, hidden, message):
    path = next(iter(write(tmp_path, 1)))
    monkeypatch.setitem(sys.modules, hidden, None)
    _, err, _ = ask(protocol, path)
    assert message in err


def bmp(bits, compression=0, masks=b"", pixels=None):
    """A BMP of 32 x 8 pixels, with a palette up to 8 bits."""
    palette = noise(2**bits, 1, channels=4).tobytes() if bits <= 8 else b""
    pixels = noise(8, 4 * bits, channels=1).tobytes() if pixels is None else pixels
    header_size = 56 if len(masks) == 16 else 40  # three masks are not in the header, four are
    after = masks + palette
    return (
        struct.pack("<2sIII", b"BM", 54 + len(after) + len(pixels), 0, 54 + len(after))
        + struct.pack("<IiiHHI20x", header_size, 32, 8, 1, bits, compression)
        + (after + pixels)
    )


def masks(*colours):
    return struct.pack(f"<{len(colours)}I", *colours)


class TestPixels:
    """`read_picture` gives the pixels of the package's evaluation."""

    @pytest.fixture(scope="class")
    def read(self):
        return runpy.run_path(str(CLIENT))["read_picture"]

    def compare(self, read, files, size, crop_ratio=0.875, exif_orientation=True, mean=0.01):
        wanted, readable = read_images(tf.constant(files), size, crop_ratio, exif_orientation)
        assert readable.numpy().all()
        for file, pixels in zip(files, wanted.numpy(), strict=True):
            got = read(file, list(size), crop_ratio, exif_orientation)
            assert got.dtype == np.float32
            difference = np.abs(got - pixels)
            # Out of 255. PIL computes in fixed point, so a few pixels round the other way.
            assert difference.max() <= 2
            assert difference.mean() < mean

    @pytest.mark.parametrize(
        ("size", "crop_ratio"),
        [
            ((240, 240, 3), 0.875),
            ((408, 408, 3), 1.0),
            ((96, 200, 3), 0.875),
            ((64, 64, 1), 0.9),
            ((600, 500, 3), 1.0),  # enlarged
        ],
    )
    def test_sizes(self, read, size, crop_ratio):
        files = [encoded(pixels, "JPEG") for pixels in (photo(), noise(31, 20), noise(20, 31))]
        self.compare(read, files, size, crop_ratio)

    def test_formats(self, read):
        kinds = [("JPEG", mode) for mode in ("L", "CMYK")]
        kinds += [("PNG", mode) for mode in ("RGBA", "LA", "P", "1")]
        kinds += [("GIF", "P"), ("BMP", "RGB"), ("BMP", "RGBA")]
        files = []
        for file_format, mode in kinds:
            pixels = noise(37, 53, channels=4 if mode in ("RGBA", "LA") else 3)
            files.append(encoded(pixels, file_format, mode))
        files.append(encoded(noise(37, 53, channels=4), "WEBP", "RGBA", lossless=True))
        sixteen_bits = np.random.default_rng(0).integers(0, 2**16, (29, 31), dtype="uint16")
        files.append(encoded(sixteen_bits, "PNG", "I;16"))
        self.compare(read, files, (24, 24, 3))

    @pytest.mark.parametrize("exif_orientation", [True, False])
    def test_turned_upright(self, read, exif_orientation):
        start = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"
        exifs = [start + bytes([number]) + bytes(6) for number in range(10)]
        exifs.append(b"Exif\0\0MM\0*")  # a broken one
        files = [encoded(noise(30, 44), "JPEG", exif=exif) for exif in exifs]
        self.compare(read, files, (24, 24, 3), exif_orientation=exif_orientation)

    @pytest.mark.parametrize("order", [">", "<"])
    @pytest.mark.parametrize("file_format", EXIF_FORMATS)
    def test_orientation_is_a_short_or_a_long(self, read, file_format, order):
        """Stored as anything else, it is ignored."""
        kinds = [*range(1, 13), 0]  # as TIFF numbers them: 5 is a RATIONAL, 8 an SSHORT
        files = [with_exif(tiff(6, order, kind=kind, before=1), file_format) for kind in kinds]
        files += [with_exif(tiff(6, order, count=count), file_format) for count in (0, 2)]
        self.compare(read, files, (24, 24, 3))
        size = [24, 24, 3], 0.875
        turned = [(read(x, *size, True) != read(x, *size, False)).any() for x in files]
        assert turned == [kind in (3, 4) for kind in kinds] + [False, False]

    def test_a_text_of_a_png_is_no_exif(self, read):
        """PIL calls both `exif`."""
        compressed, international = PngInfo(), PngInfo()
        compressed.add_text("exif", tiff(6).decode("latin-1"), zip=True)
        international.add_itxt("exif", "text")
        files = [encoded(noise(30, 44), "PNG", pnginfo=x) for x in (compressed, international)]
        self.compare(read, files, (24, 24, 3))

    def test_a_line(self, read):
        """Only the crop is computed: at this width the whole would be 24 x 24 million pixels."""
        # Enlarged 27 times, whole rows fall exactly on a half.
        self.compare(read, [encoded(noise(1_000_000, 1), "PNG")], (24, 24, 3), mean=0.5)

    @pytest.mark.parametrize("file", [b"", b"text", picture()[:-40], picture(0, "JPEG")[:300]])
    def test_no_picture(self, read, file):
        with pytest.raises(ValueError, match="not a whole image"):
            read(file, [24, 24, 3], 0.875, True)

    def test_kinds_of_bmp(self, read):
        red, green, blue, alpha = 0xFF0000, 0xFF00, 0xFF, 0xFF000000
        files = [bmp(8), bmp(24), bmp(24, 3, masks(red, green, blue)), bmp(32)]
        files += [bmp(32, 3, masks(red, green, blue)), bmp(32, 3, masks(red, green, blue, alpha))]
        self.compare(read, files, (24, 24, 3))

    @pytest.mark.parametrize(
        "file",
        [
            *(bmp(bits) for bits in (1, 4, 16)),
            bmp(16, 3, masks(0xF800, 0x7E0, 0x1F)),
            bmp(32, 3, masks(0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
            bmp(8, 1, pixels=b"\x20\x05\0\0" * 8 + b"\0\1"),  # run lengths
            bmp(24) + b"\0\0",
            b"BM" + struct.pack("<3IIHHHH", 26 + 768, 0, 26, 12, 32, 8, 1, 24) + bytes(768),
        ],
        ids=["1 bit", "4 bits", "16 bits", "masks of 16", "order", "lengths", "longer", "OS/2"],
    )
    def test_a_bmp_that_only_pil_reads(self, read, file):
        """TensorFlow Serving's model refuses it, so this does too."""
        assert decoded(file).shape == (8, 32, 3)
        assert not read_images(tf.constant([file]), (24, 24, 3))[1].numpy().any()
        with pytest.raises(ValueError, match="a BMP must be whole, uncompressed and of 8, 24 or"):
            read(file, [24, 24, 3], 0.875, True)

    def test_too_many_pixels(self, read):
        file = encoded(np.zeros((8192, 8193, 3), "uint8"), "PNG", "1")
        with pytest.raises(ValueError, match="67117056 pixels, more than 67108864"):
            read(file, [24, 24, 3], 0.875, True)
