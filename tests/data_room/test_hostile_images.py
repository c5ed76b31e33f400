"""Bytes that are not an image, or would be a very large one, end in one clear error."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data import images
from keras_crossvit.data.formats import MAX_PIXELS
from tests.data_room.image_files import decoded, encoded, noise

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
FILES = {name: encoded(noise(), name, "P" if name == "GIF" else "RGB") for name in FORMATS}


@pytest.fixture(scope="module")
def decode():
    return tf.function(images.decode, input_signature=[tf.TensorSpec([], tf.string)])


def with_sides(name, width, height):
    """A format's file, with a header that claims other sides."""
    file = bytearray(FILES[name])
    if name == "JPEG":
        frame = file.index(b"\xff\xc0")
        file[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif name == "PNG":
        file[16:24] = struct.pack(">II", width, height)
    elif name == "GIF":
        file[6:10] = struct.pack("<HH", width, height)
    elif name == "WEBP":
        file[26:30] = struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
    else:
        file[18:26] = struct.pack("<ii", width, height)
    return bytes(file)


def gif(before_frame=b""):
    """The GIF, with blocks between its colours and its first frame."""
    file = FILES["GIF"]
    colours_end = 13 + 3 * 2 ** ((file[10] & 7) + 1)
    return file[:colours_end] + before_frame + file[colours_end:]


@pytest.mark.parametrize(
    "data", [b"", b"B", b"hello", b"\x00" * 100, b"RIFF\x00\x00\x00\x00WAVEfmt ", b"<svg/>"]
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
    file[frame + 5 : frame + 9] = struct.pack("<HH", 2900, 2900)
    with pytest.raises(tf.errors.InvalidArgumentError, match="fewer pixels for its size in bytes"):
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


def flat(file_format, side, mode="L", **options):
    """The file of an image of one shade, as small as it gets."""
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, (side, side), 1).save(file, file_format, **options)
    return file.getvalue()


def test_a_film_behind_a_photograph(decode):
    """Phones' motion photos: in 9 MB of video the two bytes that begin a scan occur by chance."""
    photo = encoded(noise(), "JPEG")
    film = np.random.default_rng(0).bytes(9_000_000)
    assert film.count(b"\xff\xda") > 100
    np.testing.assert_array_equal(decode(photo + film), decoded(photo))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a JPEG must have at most 100 scans"):
        decode(photo + 400 * b"\xff\xda" + film)


def interlaced(file):
    """The PNG, with a header that claims to be read in seven passes."""
    return file[:28] + b"\x01" + file[29:]


def repeat_last_scan(file, scans):
    last = file[file.rindex(b"\xff\xda") : -2]
    return file[:-2] + last * (scans - file.count(b"\xff\xda")) + file[-2:]


@pytest.mark.parametrize(
    "file",
    [
        flat("PNG", 4100),
        flat("JPEG", 4100),
        flat("GIF", 2900),
        flat("WEBP", 4100, lossless=True),
        repeat_last_scan(flat("JPEG", 2048, progressive=True), 60),
        flat("PNG", 2900, "I;16"),
        interlaced(flat("PNG", 2900)),
    ],
    ids=["PNG", "JPEG", "GIF", "WEBP", "JPEG of many scans", "PNG of 16 bits", "interlaced PNG"],
)
def test_more_work_than_a_small_file_may_make(decode, file):
    assert len(file) < 700_000
    with pytest.raises(tf.errors.InvalidArgumentError, match="fewer pixels for its size in bytes"):
        decode(file)


@pytest.mark.parametrize(
    ("file", "side"),
    [
        (flat("PNG", 4096), 4096),
        (flat("JPEG", 4096, progressive=True), 4096),
        (repeat_last_scan(flat("JPEG", 1024, progressive=True), 60), 1024),
        (flat("GIF", 2800), 2800),
        (flat("WEBP", 4096, lossless=True), 4096),
        # What follows the PNG stands in for the bytes of a photograph of this size.
        (flat("PNG", 5000) + bytes(1_050_000), 5000),
    ],
    ids=["PNG", "JPEG", "JPEG of many scans", "GIF", "WEBP", "PNG of 1 MB"],
)
def test_large_images_that_are_read(decode, file, side):
    pixels = decode(file)
    assert pixels.shape == (side, side, 3)
    assert len(np.unique(pixels[::97, ::97])) == 1


def test_arithmetic_jpeg_counts_more(decode):
    """Its scans take four times as long. PIL writes none, so one is made by its marker."""
    file = flat("JPEG", 2100, progressive=True)
    assert decode(file).shape == (2100, 2100, 3)
    file = file.replace(b"\xff\xc2\x00", b"\xff\xca\x00")
    with pytest.raises(tf.errors.InvalidArgumentError, match="fewer pixels for its size in bytes"):
        decode(file)


def png_with(*chunks):
    """The PNG, with more chunks before its pixels."""
    data = b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return FILES["PNG"][:33] + data + FILES["PNG"][33:]


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_png_with_more_compressed_texts_than_are_inflated(decode, name):
    """A hundred of 7.8 kB each take three seconds: each becomes 8 MB."""
    text = name, b"key\0\0" + zlib.compress(bytes(8_000_000), 9)
    np.testing.assert_array_equal(decode(png_with(*[text] * 8)), decode(FILES["PNG"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 8 compressed texts"):
        decode(png_with(*[text] * 9))


def test_png_with_plain_texts(decode):
    texts = [(b"tEXt", b"key\0" + b"some text " * 500)] * 40
    np.testing.assert_array_equal(decode(png_with(*texts)), decode(FILES["PNG"]))


@pytest.mark.parametrize("scans", [20, 101])
def test_a_training_crop_has_the_same_limits(scans):
    """The crop decodes only a part of a JPEG, by another route than `decode`."""
    from keras_crossvit.data.random_crop import random_resized_crop

    file = repeat_last_scan(flat("JPEG", 4096, progressive=True), scans)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"fewer pixels|at most 100 scans"):
        random_resized_crop(file, (24, 24), (0.01, 0.01), [0, 1])


def test_webp_with_more_chunks_than_are_walked(decode):
    file = FILES["WEBP"]
    for count, read in ((1000, True), (1030, False)):
        body = b"WEBP" + b"JUNK\x02\0\0\0ab" * count + file[12:]
        other = b"RIFF" + struct.pack("<I", len(body)) + body
        if read:
            np.testing.assert_array_equal(decode(other), decode(file))
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match="must hold a whole image"):
                decode(other)


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
