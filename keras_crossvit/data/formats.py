"""The image formats, each read safely: the size from the header first, then the pixels.

Anyone may send a server any bytes. What a header claims decides how much memory a decoder
asks for, and TensorFlow's decoders take files that they should not (palettes, animations of
any length, cut-off GIFs), so the checks are here. All are TensorFlow graph functions of a
scalar string that return uint8 `(H, W, 3)` and raise `tf.errors.InvalidArgumentError`.
"""

from collections.abc import Sequence

import tensorflow as tf

MAX_PIXELS = 2**26  # 8192 x 8192; 192 MiB of memory when decoded

_MAX_JPEG_SCANS = 100  # ten or so are usual; 31 bytes can be one, which goes over all pixels
_MAX_GIF_BLOCKS = 2**15  # of at most 255 bytes; skipping one takes 12 microseconds
_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C
_BMP_RGB, _BMP_BITFIELDS = 0, 3
_BMP_MASKS = [0xFF0000, 0xFF00, 0xFF]  # red, green and blue where decode_bmp takes them from

_JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}  # as PIL and timm decode


def jpeg_sides(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height and width of a JPEG from its header, int32 `(2,)`; too many pixels are refused."""
    sides = tf.io.extract_jpeg_shape(image_bytes)[:2]
    with tf.control_dependencies([_limited(image_bytes, sides)]):
        return tf.identity(sides)


def decode_jpeg(image_bytes: tf.Tensor) -> tf.Tensor:
    """JPEG: grey, YCbCr, CMYK; a cut-off file is refused."""
    scans = tf.size(tf.strings.split([image_bytes], b"\xff\xda").values) - 1
    message = f"a JPEG must have at most {_MAX_JPEG_SCANS} scans. Received:"
    with _checks(scans <= _MAX_JPEG_SCANS, message, scans):
        sides = jpeg_sides(image_bytes)
    with tf.control_dependencies([sides]):
        return tf.io.decode_jpeg(image_bytes, **_JPEG)


def decode_jpeg_part(image_bytes: tf.Tensor, box: tf.Tensor | Sequence[int]) -> tf.Tensor:
    """A part of a JPEG of known sides; what lies below it is not even read.

    Args:
        image_bytes: A file for which `is_whole_jpeg` holds.
        box: `(top, left, height, width)`, int32, within the image.
    """
    return tf.io.decode_and_crop_jpeg(image_bytes, box, **_JPEG)


def is_whole_jpeg(image_bytes: tf.Tensor) -> tf.Tensor:
    """Whether a file begins and ends as a JPEG does.

    A file that was cut off does not; nor do a few good ones that have something after their end.
    """
    begins = tf.strings.substr(image_bytes, 0, 3) == b"\xff\xd8\xff"
    long = tf.strings.length(image_bytes) > 4
    end = tf.strings.substr(image_bytes, -2, 2)
    return begins & long & (end == b"\xff\xd9")


def decode_png(image_bytes: tf.Tensor) -> tf.Tensor:
    """PNG: grey, palette, RGB, with or without alpha, 1 to 16 bits."""
    sides = _numbers(image_bytes, 16, 2, tf.int32, little_endian=False)
    return tf.io.decode_png(_limited(image_bytes, sides), channels=3)


def decode_bmp(image_bytes: tf.Tensor) -> tf.Tensor:
    """BMP: 8 bits with a palette, 24 or 32 bits, uncompressed."""
    header = tf.cast(_numbers(image_bytes, 10, 6, tf.int32), tf.int64)
    pixels_at, header_size, sides, compression = header[0], header[1], header[2:4], header[5]
    # TensorFlow's decoder looks neither at the compression nor at the palette.
    plain = tf.cond(
        compression == _BMP_BITFIELDS,
        lambda: tf.reduce_all(_numbers(image_bytes, 54, 3, tf.int32) == _BMP_MASKS),
        lambda: compression == _BMP_RGB,
    )
    with _checks(plain, "a BMP must be uncompressed. Received: compression", compression):
        pixels = tf.io.decode_bmp(_limited(image_bytes, sides))

    def with_palette():
        palette_at = header_size + 14
        entries = _numbers(image_bytes, palette_at, pixels_at - palette_at, tf.uint8)
        colours = tf.reshape(entries, [-1, 4])[:, 2::-1]  # stored as blue, green, red, 0
        return tf.gather(colours, tf.cast(pixels[..., 0], tf.int32))

    return tf.cond(tf.shape(pixels)[2] == 1, with_palette, lambda: pixels[..., :3])


def decode_gif(image_bytes: tf.Tensor) -> tf.Tensor:
    """GIF: the first frame; what follows it is not even read."""
    sides = _numbers(image_bytes, 6, 2, tf.uint16)
    return tf.io.decode_gif(_first_frame(_limited(image_bytes, sides)))[0]


def _first_frame(image_bytes):
    """The same GIF with its first frame only.

    TensorFlow's decoder reads all frames, of which a small file may hold any number, and
    accepts a frame that is cut off.
    """
    data = tf.io.decode_raw(image_bytes, tf.uint8)

    def byte(position):
        return tf.cast(data[position], tf.int32)

    def after_table(flags_at, position):
        """Skips the colour table that the flags announce, if any."""
        flags = byte(flags_at)
        return position + tf.where(flags < 128, 0, 3 * tf.bitwise.left_shift(2, flags & 7))

    def step(at, inside):
        """Skips one block, which begins with its length, or the first bytes of an extension."""
        return at + tf.where(inside, 1 + byte(at), 2), ~inside | (byte(at) != 0)

    def walk(go_on, *start):
        return tf.while_loop(go_on, step, start, maximum_iterations=_MAX_GIF_BLOCKS)

    start = after_table(10, 13), tf.constant(False)
    frame, unfinished = walk(lambda at, inside: inside | (byte(at) == _GIF_EXTENSION), *start)
    found = ~unfinished & (byte(frame) == _GIF_FRAME)
    with _checks(found, "a GIF must hold a frame. Received: none up to byte", frame):
        image_bytes = _limited(image_bytes, _numbers(image_bytes, frame + 5, 2, tf.uint16))
        start = after_table(frame + 9, frame + 10) + 1, tf.constant(True)
    end, unfinished = walk(lambda at, inside: inside, *start)
    message = f"a GIF's first frame must end within {_MAX_GIF_BLOCKS} blocks. Received: byte"
    with _checks(~unfinished, message, end):
        return tf.strings.join([tf.strings.substr(image_bytes, 0, end), b"\x3b"])


def _numbers(image_bytes, position, count, dtype, little_endian=True):
    """`count` whole numbers that are stored one after the other, as `dtype`."""
    position = tf.cast(position, tf.int64)
    size = tf.cast(count, tf.int64) * dtype.size
    length = tf.strings.length(image_bytes)
    there = (position >= 0) & (size >= 0) & (position + size <= tf.cast(length, tf.int64))
    with _checks(there, "an image must not be cut off. Received: bytes", length):
        stored = tf.strings.substr(image_bytes, position, size)
    return tf.io.decode_raw(stored, dtype, little_endian=little_endian)


def _limited(image_bytes, sides):
    """The same bytes, once `sides` are known to be within the limit."""
    pixels = tf.reduce_prod(tf.abs(tf.cast(sides, tf.int64)))
    allowed = (pixels > 0) & (pixels <= MAX_PIXELS)
    message = f"an image must have 1 to {MAX_PIXELS} pixels. Received: sides"
    with _checks(allowed, message, sides):
        return tf.identity(image_bytes)


def _checks(condition, message, received):
    """A context whose operations run after the check has passed."""
    return tf.control_dependencies(
        [tf.debugging.Assert(condition, [f"`image_bytes`: {message}", received])]
    )
