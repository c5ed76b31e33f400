"""WebP, and orientation by EXIF: pixel by pixel what Pillow makes of a file."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, PngImagePlugin

from keras_crossvit.data import InputConfig, MemorySplit, evaluation_batches, training_batches
from keras_crossvit.data.exif import read_orientation, stored_box
from keras_crossvit.data.images import decode, evaluation_transform, read_images, why_unreadable
from keras_crossvit.data.random_crop import random_resized_crop
from tests.data_room.image_files import decoded, encoded, noise

pytestmark = pytest.mark.slow

ORIENTATIONS = range(1, 9)
EXIF_FORMATS = {"JPEG": {"subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}


@pytest.fixture(scope="module")
def graph_decode():
    return tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.fixture(scope="module")
def graph_orientation():
    return tf.function(read_orientation, input_signature=[tf.TensorSpec([], tf.string)])


def tiff(orientation, order=">", tag=0x0112, kind=3, count=1, before=0):
    """What an EXIF segment holds after its name, with `before` entries before this one."""
    magic = b"MM\0*" if order == ">" else b"II*\0"
    others = b"".join(
        struct.pack(order + "HHII", 0x0010 + number, 4, 1, 6) for number in range(before)
    )
    stored = ("I", orientation) if kind == 4 else ("HH", orientation, 0)
    value = struct.pack(order + stored[0], *stored[1:])
    entry = struct.pack(order + "HHI", tag, kind, count) + value
    directory = struct.pack(order + "H", before + 1) + others + entry + bytes(4)
    return magic + struct.pack(order + "I", 8) + directory


def with_exif(content, file_format="JPEG", pixels=None):
    pixels = noise() if pixels is None else pixels
    return encoded(pixels, file_format, exif=b"Exif\0\0" + content, **EXIF_FORMATS[file_format])


def upright(file):
    """RGB as Pillow reads and rotates it."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB"))


def webp(*chunks):
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def animation(frame, place=(0, 0), canvas=(21, 34)):
    """A WebP of one frame, `(top, left)`, both even, on a canvas `(height, width)`."""
    height, width = frame.shape[:2]
    numbers = [*(side // 2 for side in place[::-1]), width - 1, height - 1, 50]
    header = b"".join(struct.pack("<I", number)[:3] for number in numbers) + b"\0"
    still = encoded(frame, "WEBP", lossless=True)[12:]
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in canvas[::-1])
    return webp(
        chunk(b"VP8X", b"\x02\0\0\0" + sides),
        chunk(b"ANIM", bytes(6)),
        chunk(b"ANMF", header + still),
        chunk(b"ANMF", b"never read"),
    )


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_webp_is_pil(graph_decode, mode, lossless):
    file = encoded(noise(channels=4), "WEBP", mode, lossless=lossless, exact=True)
    np.testing.assert_array_equal(graph_decode(file), decoded(file))


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_with_a_profile_and_exif(graph_decode, lossless):
    file = encoded(
        noise(), "WEBP", lossless=lossless, icc_profile=b"profile" * 9, exif=b"Exif\0\0" + tiff(1)
    )
    assert file[12:16] == b"VP8X"
    np.testing.assert_array_equal(graph_decode(file), decoded(file))


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_animation_gives_its_first_frame(graph_decode, lossless):
    frames = [Image.fromarray(noise(seed=seed)) for seed in range(1, 4)]
    file = encoded(
        noise(), "WEBP", save_all=True, append_images=frames, duration=50, lossless=lossless
    )
    np.testing.assert_array_equal(graph_decode(file), decoded(file))


def test_webp_frame_smaller_than_its_canvas(graph_decode):
    frame = noise(8, 10)
    pixels = graph_decode(animation(frame, place=(6, 4))).numpy()
    expected = np.zeros((21, 34, 3), "uint8")
    expected[6:14, 4:14] = frame
    np.testing.assert_array_equal(pixels, expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must lie on its canvas"):
        graph_decode(animation(frame, place=(14, 4)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have 1 to"):
        graph_decode(animation(frame, canvas=(8193, 8192)))


def test_webp_that_asks_to_be_shown_larger(graph_decode):
    """Two bits beside each side of a lossy one, which decoders ignore."""
    file = bytearray(encoded(noise(), "WEBP", lossless=False))
    assert file[12:16] == b"VP8 "
    file[27] |= 0x40
    file[29] |= 0xC0
    np.testing.assert_array_equal(graph_decode(bytes(file)), decoded(bytes(file)))


def test_webp_one_pixel_high_or_wide(graph_decode):
    for shape in ((1, 3), (3, 1)):
        file = encoded(noise(*shape), "WEBP", lossless=True)
        np.testing.assert_array_equal(graph_decode(file), decoded(file))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("file_format", EXIF_FORMATS)
def test_orientations_are_pillows(graph_decode, file_format, order):
    for orientation in ORIENTATIONS:
        file = with_exif(tiff(orientation, order, before=3), file_format)
        pixels = graph_decode(file).numpy()
        assert pixels.shape == ((34, 21, 3) if orientation > 4 else (21, 34, 3))
        np.testing.assert_array_equal(pixels, upright(file))
        np.testing.assert_array_equal(decode(file, exif_orientation=False), decoded(file))


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientations_of_four_bytes(graph_decode, order):
    """Some programs write a LONG where EXIF asks for a SHORT."""
    for orientation, turned in ((5, True), (6, True), (6 << 16, False)):
        file = with_exif(tiff(orientation, order, kind=4, before=2))
        pixels = graph_decode(file).numpy()
        assert pixels.shape == ((34, 21, 3) if turned else (21, 34, 3))
        np.testing.assert_array_equal(pixels, upright(file))


def test_exif_after_other_segments(graph_orientation):
    """JFIF first, then segments of other applications, at most 32 of them."""
    file = with_exif(tiff(6))
    start = file.index(b"\xff\xe1")
    jfif = b"\xff\xe0\0\x10JFIF\0" + bytes(9)
    other = b"\xff\xe2\0\x04ab" + b"\xff\xe1\0\x0bhttp:xmp\0" + b"\xff\xfe\0\x05abc"
    for before, expected in (
        (b"", 6),
        (jfif, 6),
        (jfif + other, 6),
        (other * 10, 6),
        (other * 99, 1),
    ):
        assert graph_orientation(b"\xff\xd8" + before + file[start:]) == expected


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_a_png_after_texts_that_name_its_chunk(graph_decode, graph_orientation, order):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "eXIf was removed by eXIfII* and eXIfMM")
    file = encoded(noise(), "PNG", pnginfo=texts, exif=b"Exif\0\0" + tiff(6, order))
    assert file.index(b"eXIf was") < file.index(b"eXIf" + tiff(6, order))
    assert graph_orientation(file) == 6
    np.testing.assert_array_equal(graph_decode(file), upright(file))
    assert graph_orientation(encoded(noise(), "PNG", pnginfo=texts)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MM",
        b"junk" * 9,
        tiff(0),
        tiff(9),
        tiff(6, tag=0x0111),
        tiff(6, kind=2),
        tiff(6, count=2),
        tiff(6)[:12],
        tiff(6)[:4] + b"\xff\xff\xff\xff" + tiff(6)[8:],
        b"MM\0+" + tiff(6)[4:],
        tiff(6)[:8] + b"\0\0" + tiff(6)[10:],
        tiff(6, before=200),
    ],
)
@pytest.mark.parametrize("file_format", EXIF_FORMATS)
def test_broken_exif_is_ignored(graph_decode, file_format, content):
    file = with_exif(content, file_format)
    np.testing.assert_array_equal(graph_decode(file), decoded(file))


def test_cut_off_anywhere_in_the_exif(graph_orientation):
    for file_format in EXIF_FORMATS:
        file = with_exif(tiff(6), file_format)
        assert graph_orientation(file) == 6
        for length in range(len(file)):
            assert 1 <= graph_orientation(file[:length]) <= 8


def test_files_without_orientation(graph_orientation):
    for file in (
        b"",
        b"RIFF",
        b"\xff\xd8\xff",
        encoded(noise(), "GIF", "P"),
        encoded(noise(), "BMP"),
    ):
        assert graph_orientation(file) == 1


@pytest.mark.parametrize("file_format", EXIF_FORMATS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_training_crop_is_that_of_the_upright_image(file_format, orientation):
    """The same seed takes the same part, whichever way the image is stored."""
    file = with_exif(tiff(orientation), file_format, noise(40, 60))
    turned = encoded(upright(file), "PNG")
    for seed in range(4):
        arguments = (24, 20), (0.2, 0.9), [7, seed]
        crop, expected = (random_resized_crop(x, *arguments).numpy() for x in (file, turned))
        np.testing.assert_array_equal(crop, expected)
        stored = random_resized_crop(file, *arguments, exif_orientation=False)
        untagged = random_resized_crop(encoded(decoded(file), "PNG"), *arguments)
        np.testing.assert_array_equal(stored, untagged)


def test_stored_box():
    """It holds the numbered pixels that the box shows once the image is upright."""
    stored = np.arange(5 * 7).reshape(5, 7, 1).repeat(3, -1).astype("uint8")
    for orientation in ORIENTATIONS:
        file = with_exif(tiff(orientation), "PNG", stored)
        image = upright(file)[..., 0]
        box, sides = tf.constant([1, 2, 2, 3]), tf.constant(image.shape)
        found = stored_box(box, sides, tf.constant(orientation, tf.int64))
        top, left, height, width = found.numpy()
        part = stored[top : top + height, left : left + width, 0]
        np.testing.assert_array_equal(np.sort(part, None), np.sort(image[1:3, 2:5], None))


@pytest.mark.parametrize("exif_orientation", [True, False])
def test_training_evaluation_and_serving_agree(exif_orientation):
    """One whole image, along the three ways in which pixels reach a model."""
    file = with_exif(tiff(6), "PNG", noise(32, 32))
    expected = upright(file) if exif_orientation else decoded(file)
    assert (upright(file) != decoded(file)).any()
    split = MemorySplit([file] * 2, [0, 1])
    config = InputConfig(
        batch_size=2,
        augment="none",
        crop_area=(1, 1),
        horizontal_flip=False,
        exif_orientation=exif_orientation,
    )
    trained, _ = next(iter(training_batches(split, 2, (32, 32), config)))
    evaluated, _, _ = next(
        iter(evaluation_batches(split, 2, (32, 32), 2, 1.0, exif_orientation=exif_orientation))
    )
    served, readable = read_images(tf.constant([file]), (32, 32), 1.0, exif_orientation)
    assert readable.numpy().all()
    for pixels in (trained[0], evaluated[1], served[0]):
        np.testing.assert_array_equal(pixels, expected)


def test_evaluation_transform_of_a_turned_image(graph_decode):
    file = with_exif(tiff(8), "WEBP", noise(50, 90))
    np.testing.assert_array_equal(
        evaluation_transform(graph_decode(file), (24, 20)),
        evaluation_transform(upright(file), (24, 20)),
    )


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (
            b"hello",
            "image_bytes must be a JPEG, PNG, GIF, BMP or WebP file. Received: bytes that ",
        ),
        (encoded(noise(), "PNG")[:20], "an image must not be cut off. Received: bytes 20"),
        (
            encoded(noise(), "WEBP")[:50],
            "a WebP must hold a whole image. Received: chunk at byte 12",
        ),
        (encoded(noise(), "JPEG")[:-30], "jpeg::Uncompress failed. Invalid JPEG data"),
        (encoded(noise(), "PNG")[:99], "Invalid PNG data, size 99"),
        (b"", "the file is empty"),
        (encoded(noise(), "PNG"), "it can be decoded, but cropping or augmenting it failed"),
    ],
)
def test_why_unreadable(file, reason):
    assert why_unreadable(file).startswith(reason)
