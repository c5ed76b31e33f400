"""Bytes that are not an image, or would be a very large one, end in one clear error."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data import images
from keras_crossvit.data.formats import MAX_PIXELS
from tests.data_room.image_files import encoded, noise

FORMATS = ("JPEG", "PNG", "GIF", "BMP")
FILES = {name: encoded(noise(), name, "P" if name == "GIF" else "RGB") for name in FORMATS}


@pytest.fixture(scope="module")
def decode():
    return tf.function(images.decode, input_signature=[tf.TensorSpec([], tf.string)])


def with_sides(name, width, height):
    """The file of a format whose header claims other sides."""
    file = bytearray(FILES[name])
    if name == "JPEG":
        frame = file.index(b"\xff\xc0")
        file[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif name == "PNG":
        file[16:24] = struct.pack(">II", width, height)
    elif name == "GIF":
        file[6:10] = struct.pack("<HH", width, height)
    else:
        file[18:26] = struct.pack("<ii", width, height)
    return bytes(file)


def gif(before_frame=b""):
    """The GIF, with blocks between its colours and its first frame."""
    file = FILES["GIF"]
    colours_end = 13 + 3 * 2 ** ((file[10] & 7) + 1)
    return file[:colours_end] + before_frame + file[colours_end:]


@pytest.mark.parametrize(
    "data", [b"", b"B", b"hello", b"\x00" * 100, b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"<svg/>"]
)
def test_not_an_image(decode, data):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="must be a JPEG, PNG, GIF, BMP or WebP"
    ):
        decode(data)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_off(decode, name):
    """Anywhere in the headers, and at many places after them."""
    file = FILES[name]
    # The last byte of a GIF says only that no other frame follows.
    whole = len(file) - (name == "GIF")
    for length in [*range(80), *range(80, whole, 29), whole - 1]:
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(file[:length])
    assert decode(file[:whole]).shape == (21, 34, 3)


@pytest.mark.parametrize("name", FORMATS)
def test_too_many_pixels(decode, name):
    for sides in ((60_000, 60_000), (MAX_PIXELS // 8192 + 1, 8192)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"1 to {MAX_PIXELS} pixels"):
            decode(with_sides(name, *sides))


def test_refused_before_decoding(decode):
    """Neither the error nor the peak of memory comes from a decoder."""
    import psutil

    decode(FILES["PNG"])
    before = psutil.Process().memory_info().rss
    for name in FORMATS:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"pixels\. Received: sides"):
            decode(with_sides(name, 60_000, 60_000))
    assert psutil.Process().memory_info().rss - before < 100e6


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sides", [(0, 0), (0, 9), (9, 0)])
def test_no_pixels(decode, name, sides):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(with_sides(name, *sides))


def test_sides_that_overflow(decode):
    for file in (
        with_sides("PNG", 2**32 - 1, 2**32 - 1),
        with_sides("PNG", 2**31, 2),
        with_sides("BMP", -(2**31), -(2**31)),
        with_sides("BMP", -34, 21),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(file)


def test_gif_frame_larger_than_its_screen(decode):
    file = bytearray(FILES["GIF"])
    frame = file.index(b"\x2c\x00\x00\x00\x00\x22\x00\x15\x00")
    file[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"1 to {MAX_PIXELS} pixels"):
        decode(bytes(file))


def test_jpeg_with_more_scans_than_are_decoded(decode):
    """Scans that change nothing: a second of decoding for each kilobyte of a large image."""
    file = encoded(noise(), "JPEG", progressive=True)
    last = file[file.rindex(b"\xff\xda") : -2]
    scans = file.count(b"\xff\xda")
    assert 1 < scans < 20
    allowed = file[:-2] + last * (100 - scans) + file[-2:]
    assert decode(allowed).shape == (21, 34, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a JPEG must have at most 100 scans"):
        decode(allowed[:-2] + last + allowed[-2:])


def test_gif_with_more_blocks_than_are_walked(decode):
    few, many = b"\x01a" * 100 + b"\x00", b"\x01a" * 40_000 + b"\x00"
    np.testing.assert_array_equal(decode(gif(b"\x21\xfe" + few)), decode(FILES["GIF"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a GIF must hold a frame"):
        decode(gif(b"\x21\xfe" + many))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a GIF must hold a frame"):
        decode(gif(b"\x21\xfe\x00" * 40_000))


def test_gif_frames_after_the_first_are_not_read(decode):
    junk = b"\x2c" + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + b"\x00\x08\x01\x00\x00"
    file = FILES["GIF"][:-1] + junk + b";"
    np.testing.assert_array_equal(decode(file), decode(FILES["GIF"]))


def test_bmp_that_the_decoder_would_misread(decode):
    for bits in (1, 4, 16):
        file = bytearray(FILES["BMP"])
        file[28:30] = struct.pack("<H", bits)
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(bytes(file))
    file = bytearray(encoded(noise(), "BMP", "P"))
    file[30:34] = struct.pack("<i", 1)  # run lengths
    with pytest.raises(tf.errors.InvalidArgumentError, match="a BMP must be uncompressed"):
        decode(bytes(file))


def test_changed_bytes_raise_nothing_else(decode):
    """600 files with random bytes in the header or anywhere: an image, or the one error."""
    random = np.random.default_rng(0)
    files = [*FILES.values(), encoded(noise(), "BMP", "P")]
    outcomes = []
    for index in range(600):
        file = bytearray(files[index % len(files)])
        for _ in range(random.integers(1, 6)):
            file[random.integers(0, len(file) if random.random() < 0.3 else 60)] = random.integers(
                0, 256
            )
        try:
            pixels = decode(bytes(file))
        except tf.errors.InvalidArgumentError:
            outcomes.append("refused")
        else:
            assert pixels.shape[-1] == 3
            outcomes.append("read")
    assert set(outcomes) == {"refused", "read"}
