"""The image formats, each read safely: the size from the header first, then the pixels.

Anyone may send a server any bytes. What a header claims decides how much memory and time a
decoder takes, and TensorFlow's decoders accept files that they should not (palettes, animations
of any length, truncated GIFs), so the checks are here: a file of up to 1 MB costs less than a
second. All are TensorFlow graph functions of a scalar string that return uint8 `(H, W, 3)` and
raise `tf.errors.InvalidArgumentError`.
"""

from collections.abc import Sequence

import tensorflow as tf

MAX_PIXELS = 2**26  # 8192 x 8192; 192 MiB of memory when decoded

# A file of a few kilobytes can claim MAX_PIXELS. Photographs have 2 to 16 pixels per byte.
_PIXELS_OF_ANY_FILE = 2**24  # 4096 x 4096
_PIXELS_PER_BYTE = 24

_MAX_JPEG_SCANS = 100  # ten or so are usual; 12 bytes can be one, which covers all pixels
_USUAL_JPEG_SCANS = 12
# A phone's "motion photo" is a JPEG followed by a video, in which the two bytes that begin a scan
# occur by chance, once in 2**16 bytes. From 1 MB on, twice that many are allowed.
_BYTES_PER_CHANCE_SCAN, _BYTES_WITHOUT_FILM = 2**15, 2**20
_LARGE_JPEG = 2**22  # pixels; whether arithmetic coding makes the scans slow matters from here on
_JPEG_ARITHMETIC = b"\xff\xca\x00"  # begins the frame of a progressive JPEG coded this way
_PNG_COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")  # the decoder inflates each to up to 8 MB
_MAX_PNG_COMPRESSED = 8
_MAX_GIF_BLOCKS = 2**15  # of at most 255 bytes; skipping one takes 12 microseconds
_MAX_GIF_BLOCKS_BEFORE = 2**12  # the first frame
_MAX_WEBP_CHUNKS = 2**10
_WEBP_FRAME = 16  # bytes before the chunks of a frame: its place, its sides, its duration
_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C
_BMP_RGB, _BMP_BITFIELDS = 0, 3
_BMP_MASKS = [0xFF0000, 0xFF00, 0xFF]  # red, green and blue, where decode_bmp reads them

_JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}  # as PIL and timm decode


def jpeg_sides(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height and width of a JPEG from its header, int32 `(2,)`; refuses too much work."""
    scans = _count(image_bytes, b"\xff\xda")
    more = tf.maximum(tf.strings.length(image_bytes) - _BYTES_WITHOUT_FILM, 0)
    allowed = _MAX_JPEG_SCANS + more // _BYTES_PER_CHANCE_SCAN
    message = f"a JPEG must have at most {_MAX_JPEG_SCANS} scans. Received:"
    with _checks(scans <= allowed, message, scans):
        sides = tf.io.extract_jpeg_shape(image_bytes)[:2]
    work = tf.maximum(1.0, tf.cast(scans, tf.float32) / _USUAL_JPEG_SCANS)
    work *= tf.cond(
        tf.reduce_prod(tf.cast(sides, tf.float32)) > _LARGE_JPEG,
        lambda: tf.where(_count(image_bytes, _JPEG_ARITHMETIC) > 0, 4.0, 1.0),
        lambda: 1.0,
    )
    with tf.control_dependencies([_limited(image_bytes, sides, work)]):
        return tf.identity(sides)


def decode_jpeg(image_bytes: tf.Tensor) -> tf.Tensor:
    """JPEG: grey, YCbCr, CMYK; a truncated file is refused."""
    with tf.control_dependencies([jpeg_sides(image_bytes)]):
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

    A truncated file does not; nor do a few good ones that have something after their end.
    """
    begins = tf.strings.substr(image_bytes, 0, 3) == b"\xff\xd8\xff"
    long = tf.strings.length(image_bytes) > 4
    end = tf.strings.substr(image_bytes, -2, 2)
    return begins & long & (end == b"\xff\xd9")


def decode_png(image_bytes: tf.Tensor) -> tf.Tensor:
    """PNG: grey, palette, RGB, with or without alpha, 1 to 16 bits."""
    sides = _numbers(image_bytes, 16, 2, tf.int32, little_endian=False)
    kind = _numbers(image_bytes, 24, 5, tf.uint8)
    bits, interlaced = kind[0], kind[4]
    compressed = tf.add_n([_count(image_bytes, name) for name in _PNG_COMPRESSED])
    message = f"a PNG must have at most {_MAX_PNG_COMPRESSED} compressed texts. Received:"
    with _checks(compressed <= _MAX_PNG_COMPRESSED, message, compressed):
        work = tf.where((bits > 8) | (interlaced > 0), 2.0, 1.0)
    return tf.io.decode_png(_limited(image_bytes, sides, work), channels=3)


def decode_bmp(image_bytes: tf.Tensor) -> tf.Tensor:
    """BMP: 8 bits with a palette, 24 or 32 bits, uncompressed."""
    header = tf.cast(_numbers(image_bytes, 10, 6, tf.int32), tf.int64)
    pixels_at, header_size, sides, compression = header[0], header[1], header[2:4], header[5]
    # TensorFlow's decoder ignores both the compression and the palette.
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
    return tf.io.decode_gif(_first_frame(_limited(image_bytes, sides, work=2.0)))[0]


def _first_frame(image_bytes):
    """The same GIF with its first frame only.

    TensorFlow's decoder reads all frames, however many a small file holds, and accepts a
    truncated one.
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

    def walk(go_on, start, limit):
        return tf.while_loop(go_on, step, start, maximum_iterations=limit)

    start = after_table(10, 13), tf.constant(False)
    frame, unfinished = walk(
        lambda at, inside: inside | (byte(at) == _GIF_EXTENSION), start, _MAX_GIF_BLOCKS_BEFORE
    )
    found = ~unfinished & (byte(frame) == _GIF_FRAME)
    with _checks(found, "a GIF must hold a frame. Received: none up to byte", frame):
        sides = _numbers(image_bytes, frame + 5, 2, tf.uint16)
        image_bytes = _limited(image_bytes, sides, work=2.0)
        start = after_table(frame + 9, frame + 10) + 1, tf.constant(True)
    end, unfinished = walk(lambda at, inside: inside, start, _MAX_GIF_BLOCKS)
    message = f"a GIF's first frame must end within {_MAX_GIF_BLOCKS} blocks. Received: byte"
    with _checks(~unfinished, message, end):
        return tf.strings.join([tf.strings.substr(image_bytes, 0, end), b"\x3b"])


def decode_webp(image_bytes: tf.Tensor) -> tf.Tensor:
    """WebP: lossy and lossless; the first frame of an animation, with black around it.

    TensorFlow's decoder writes outside its memory when it decodes an animation, so it is given
    only the one still image.
    """
    outer, outer_name, _ = webp_chunk(image_bytes, (b"VP8 ", b"VP8L", b"ANMF"), 12)
    animated = outer_name == b"ANMF"
    inner = tf.where(animated, outer + 8 + _WEBP_FRAME, outer)  # a frame holds chunks, too
    at, name, size = webp_chunk(image_bytes, (b"VP8 ", b"VP8L"), inner)
    whole = (outer_name != b"") & (name != b"") & (at + 8 + size <= _length(image_bytes))
    with _checks(whole, "a WebP must hold a whole image. Received: chunk at byte", at):
        sides = _webp_sides(image_bytes, at, name)
    # The header, then the image; what precedes it goes to the end, so that the header's length
    # stays right.
    bounds = tf.stack([0, 12, at, _length(image_bytes), 12, at])
    parts = tf.strings.substr([image_bytes] * 3, bounds[::2], bounds[1::2] - bounds[::2])
    still = tf.strings.reduce_join(parts)
    # Not decode_webp: a server before TensorFlow 2.20 could not even load a graph with it.
    pixels = tf.io.decode_image(_limited(still, sides), expand_animations=False)[..., :3]
    return tf.cond(animated, lambda: _on_canvas(image_bytes, outer, pixels), lambda: pixels)


def webp_chunk(
    image_bytes: tf.Tensor, names: Sequence[bytes], start: tf.Tensor | int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The first chunk of a WebP with one of the `names`, from byte `start` on.

    Returns:
        Its position, its name and the size of its content, which follows after 8 bytes; int64,
        string and int64 scalars. The name is empty if there is none.
    """

    def at_chunk(at):
        name = tf.strings.substr(image_bytes, tf.minimum(at, _length(image_bytes)), 4)
        size = padded_bytes(image_bytes, at + 4, 4)
        return name, tf.reduce_sum(size * [1, 2**8, 2**16, 2**24])

    def other(at):
        name, _ = at_chunk(at)
        return (at < _length(image_bytes)) & ~tf.reduce_any(name == tf.constant(names))

    def after(at):
        _, size = at_chunk(at)
        return (at + 8 + size + size % 2,)

    start = (tf.cast(start, tf.int64),)
    (at,) = tf.while_loop(other, after, start, maximum_iterations=_MAX_WEBP_CHUNKS)
    name, size = at_chunk(at)
    return at, tf.where(other(at), b"", name), size


def _webp_sides(image_bytes, at, name):
    """Height and width of the image in the chunk at byte `at`, int64 `(2,)`."""
    lossy = padded_bytes(image_bytes, at + 14, 4)  # two 14-bit numbers, each with two more bits
    lossless = tf.reduce_sum(padded_bytes(image_bytes, at + 9, 4) * [1, 2**8, 2**16, 2**24])
    height_width = tf.stack([lossy[2] + 256 * lossy[3], lossy[0] + 256 * lossy[1]]) % 2**14
    return tf.where(
        name == b"VP8 ",
        height_width,
        tf.stack([lossless // 2**14, lossless]) % 2**14 + 1,
    )


def _on_canvas(image_bytes, frame, pixels):
    """A frame of an animation, at its place on the canvas."""
    numbers = [padded_bytes(image_bytes, at, 6) for at in (24, frame + 8)]
    canvas, place = (tf.reshape(x, [2, 3]) @ [[1], [2**8], [2**16]] for x in numbers)
    canvas, place = canvas[::-1, 0] + 1, 2 * place[::-1, 0]
    below = canvas - place - tf.shape(pixels, tf.int64)[:2]
    message = "a WebP's frame must lie on its canvas. Received: free pixels"
    with _checks(tf.reduce_all(below >= 0), message, below):
        paddings = tf.stack([place, below], axis=1)
    with tf.control_dependencies([_limited(image_bytes, canvas)]):
        return tf.pad(pixels, tf.concat([paddings, [[0, 0]]], axis=0))


def has(image_bytes: tf.Tensor, at: tf.Tensor | int, content: bytes) -> tf.Tensor:
    """Whether the bytes `content` are at byte `at`, a bool scalar."""
    at = tf.minimum(tf.cast(at, tf.int64), _length(image_bytes))
    return tf.strings.substr(image_bytes, at, len(content)) == content


def padded_bytes(image_bytes: tf.Tensor, start: tf.Tensor | int, count: int) -> tf.Tensor:
    """`count` bytes from byte `start` on, int64 `(count,)`; 0 for those after the file's end."""
    start = tf.minimum(tf.cast(start, tf.int64), _length(image_bytes))
    stored = tf.strings.substr(image_bytes, start, count)
    stored = tf.io.decode_raw(stored, tf.uint8, fixed_length=count)
    return tf.cast(tf.ensure_shape(stored, [count]), tf.int64)


def _numbers(image_bytes, position, count, dtype, little_endian=True):
    """`count` whole numbers that are stored one after the other, as `dtype`."""
    position = tf.cast(position, tf.int64)
    size = tf.cast(count, tf.int64) * dtype.size
    length = tf.strings.length(image_bytes)
    there = (position >= 0) & (size >= 0) & (position + size <= tf.cast(length, tf.int64))
    with _checks(there, "an image must not be cut off. Received: bytes", length):
        stored = tf.strings.substr(image_bytes, position, size)
    return tf.io.decode_raw(stored, dtype, little_endian=little_endian)


def _count(image_bytes, marker):
    """How often the bytes `marker` occur, int32."""
    parts = tf.raw_ops.StringSplitV2(input=[image_bytes], sep=marker).values
    return tf.size(parts) - 1


def _length(image_bytes):
    return tf.cast(tf.strings.length(image_bytes), tf.int64)


def _limited(image_bytes, sides, work=1.0):
    """The same bytes, once `sides` are known to be within the limits.

    Args:
        image_bytes: The file.
        sides: Height and width in pixels, as the file claims.
        work: Time that a pixel takes, relative to one of a plain file.
    """
    pixels = tf.reduce_prod(tf.abs(tf.cast(sides, tf.int64)))
    message = f"an image must have 1 to {MAX_PIXELS} pixels. Received: sides"
    with _checks((pixels > 0) & (pixels <= MAX_PIXELS), message, sides):
        allowed = tf.maximum(
            tf.cast(_PIXELS_OF_ANY_FILE, tf.int64), _length(image_bytes) * _PIXELS_PER_BYTE
        )
    cheap = tf.cast(pixels, tf.float32) * work <= tf.cast(allowed, tf.float32)
    message = "an image must have fewer pixels for its size in bytes. Received: sides"
    with _checks(cheap, message, sides):
        return tf.identity(image_bytes)


def _checks(condition, message, received):
    """A context whose operations run after the check has passed."""
    data = [f"`image_bytes`: {message}", received]
    # The bare operation: `tf.debugging.Assert` puts a conditional around it, which costs more.
    return tf.control_dependencies([tf.raw_ops.Assert(condition=condition, data=data)])
