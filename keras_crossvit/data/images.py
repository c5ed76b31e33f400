"""From the bytes of an image file to the pixels that a model is evaluated on.

TensorFlow graph functions, for both `tf.data` and the exported SavedModel, so that an image is
the same in training, evaluation and serving.
"""

import math
import re
from collections.abc import Sequence

import tensorflow as tf

from keras_crossvit.common.checks import check_up_to
from keras_crossvit.common.tf_data import graph_function, noinline
from keras_crossvit.data.exif import oriented, read_orientation
from keras_crossvit.data.formats import (
    decode_bmp,
    decode_gif,
    decode_jpeg,
    decode_png,
    decode_webp,
    has,
)
from keras_crossvit.data.rows import map_good_rows

_DECODERS = {
    (0, b"\xff\xd8\xff"): decode_jpeg,
    (0, b"\x89PNG\r\n\x1a\n"): decode_png,
    (0, b"GIF8"): decode_gif,
    (0, b"BM"): decode_bmp,
    (8, b"WEBP"): decode_webp,
}
_USUAL = (decode_jpeg, decode_png)  # their operations are in the graph itself
_PARALLEL_READS = 4  # in one batch; each may take as much memory as MAX_PIXELS allows


def decode(image_bytes: tf.Tensor, exif_orientation: bool = True) -> tf.Tensor:
    """Decodes an image file.

    An animation yields its first frame; grey and CMYK become RGB; alpha is dropped, not
    blended, but transparent pixels of a GIF are black; the upper 8 of 16 bits are kept.

    Args:
        image_bytes: The file, JPEG, PNG, GIF, BMP or WebP; a scalar string.
        exif_orientation: Whether an image is turned upright according to its EXIF. `False`
            leaves it as stored, as timm does.

    Returns:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, if the bytes are not a complete image in
            one of these formats, or claim more than `formats.MAX_PIXELS` pixels, or so many for
            the size of the file, in so many passes, that decoding would take seconds. The claim
            is read from the headers, before any pixel is decoded.
    """
    image_bytes = tf.convert_to_tensor(image_bytes)  # or functions are traced for each file
    in_graph = not tf.executing_eagerly()
    return (_decode_in_graph if in_graph else _decode)(image_bytes, bool(exif_orientation))


def _decode(image_bytes, exif_orientation):
    def refuse():
        with tf.control_dependencies([_refusal(image_bytes)]):
            return tf.zeros([1, 1, 3], tf.uint8)

    def decode_by(decoder):
        if decoder not in _USUAL and not tf.executing_eagerly():
            decoder = noinline(decoder)
        return lambda: decoder(image_bytes)

    branches = [
        (has(image_bytes, at, magic), decode_by(decoder))
        for (at, magic), decoder in _DECODERS.items()
    ]
    pixels = tf.case(branches, default=refuse)
    pixels.set_shape([None, None, 3])
    if not exif_orientation:
        return pixels
    # Not at the same time: an error in one would cancel the other, and that cancellation would
    # be the error reported.
    with tf.control_dependencies([pixels]):
        return oriented(pixels, read_orientation(image_bytes))


_decode_in_graph = graph_function(_decode)


def why_unreadable(image_bytes: bytes) -> str:
    """Why `decode` refuses a file, in a few words.

    Runs operation by operation, not as a graph, so that it can be called from within one: a
    graph within a graph may wait for the very thread that it occupies.
    """
    if not image_bytes:
        return "the file is empty"
    try:
        decode(tf.constant(image_bytes), exif_orientation=False)
    except tf.errors.InvalidArgumentError as error:
        noise = r"\{\{.*?\}\}|\[Op:.*?\]| name: .*|assertion failed:|`image_bytes`:|[\[\]`]"
        return " ".join(re.sub(noise, "", error.message).split())
    return "it can be decoded, but cropping or augmenting it failed"


def _refusal(image_bytes):
    # As numbers, because an error message must be text, which these bytes need not be.
    begin = tf.io.decode_raw(tf.strings.substr(image_bytes, 0, 8), tf.uint8)
    message = (
        "`image_bytes` must be a JPEG, PNG, GIF, BMP or WebP file. Received: bytes that begin with"
    )
    return tf.raw_ops.Assert(condition=False, data=[message, begin], summarize=8)


def size_with_channels(size: Sequence[int]) -> tuple[int, int, int]:
    """`(height, width, channels)` of a model's images; `size` may leave out 3 channels.

    Raises:
        ValueError: If the channels are neither 1 nor 3, the numbers that image files are read as.
    """
    height, width, channels = (*size, 3) if len(size) == 2 else size
    if channels not in (1, 3):
        raise ValueError(
            "`size` must be of 1 or 3 channels, (height, width[, channels]), to read image files; "
            "for others make a tf.data pipeline and train by model.fit. "
            f"Received: size={tuple(size)}"
        )
    return height, width, channels


def to_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB `(..., 3)` as it is, or with `channels=1` as luminance `(..., 1)`."""
    return pixels if channels == 3 else tf.image.rgb_to_grayscale(pixels)


def evaluation_transform(
    image: tf.Tensor, size: Sequence[int], crop_ratio: float = 0.875
) -> tf.Tensor:
    """Resizes and crops an image as for the evaluation of the published models.

    The shorter side becomes `floor(size / crop_ratio)` pixels, bicubic (a = -0.5) with
    antialiasing, and the centre is kept: timm's transform, with its rounding of sizes and
    offsets and with PIL's rounding of pixels after each pass. Only the crop is computed. Rows
    are resized first, as in Pillow up to 12; Pillow 13 begins with the columns of images more
    than twice as high as wide, where its pixels differ by a few out of 255.

    Args:
        image: uint8 `(H, W, 3)`.
        size: `(height, width)` of the result, in pixels, known integers.
        crop_ratio: Share of the resized image's shorter side that is kept, in (0, 1].

    Returns:
        float32 `(height, width, 3)`, whole numbers in 0..255.

    Raises:
        ValueError: If `crop_ratio` is outside its range.
    """
    check_up_to("crop_ratio", crop_ratio)
    original = tf.shape(image, tf.int64)[:2]
    resized = _resized_size(original, [math.floor(side / crop_ratio) for side in size])
    first = _round((resized - size) / 2)
    scale = resized / original
    # As in PIL: along the rows and rounded, then along the columns and rounded. Each time the
    # axis is moved to the front, where the operation is fastest.
    height, width = size
    top, bottom = _rows_that_count(first[0], height, scale[0], original[0])
    pixels = tf.transpose(image[top:bottom], [1, 0, 2])
    pixels = tf.transpose(_resize_first_axis(pixels, width, scale[1], first[1]), [1, 0, 2])
    down = tf.cast(first[0], tf.float64) - tf.cast(top, tf.float64) * scale[0]
    pixels = _resize_first_axis(pixels, height, scale[0], down)
    return tf.ensure_shape(pixels, (height, width, 3))


def _rows_that_count(first, height, scale, rows):
    """First and end of the range of the `rows` that the kernel reads for the crop.

    The others are left out: a file of 2 kB can be 1 pixel wide and a million high, and all its
    rows at the width of the crop would take gigabytes.
    """
    reach = 2 * tf.maximum(1.0 / scale, 1.0) + 1  # the kernel's radius, plus one for rounding
    top = tf.floor(tf.cast(first, tf.float64) / scale - reach)
    bottom = tf.math.ceil(tf.cast(first + height, tf.float64) / scale + reach)
    last = tf.cast(rows, tf.float64)
    return [tf.cast(tf.clip_by_value(row, 0.0, last), tf.int64) for row in (top, bottom)]


def _resized_size(original, smallest):
    """The smallest size of the same aspect ratio that covers `smallest`, rounded as in timm."""
    if smallest[0] == smallest[1]:
        return original * smallest[0] // tf.reduce_min(original)
    # Which side decides, in whole numbers. TensorFlow would multiply by the reciprocal of a
    # constant instead of dividing by it, and so make halves that are to be rounded a bit larger.
    side = tf.cast(original[0] * smallest[1] > original[1] * smallest[0], tf.int64)
    ratio = original[side] / tf.constant(smallest, tf.int64)[side]
    return _round(tf.cast(original, tf.float64) / ratio)


def _round(x):
    """To the nearest whole number, halves to the even one, as Python rounds."""
    return tf.cast(tf.round(x), tf.int64)


def _resize_first_axis(pixels, size, scale, first):
    """`(H, W, 3)` to `(size, W, 3)`: of `H * scale` rows, the part that begins at `first`."""
    height, width = tf.unstack(tf.shape(pixels)[:2])
    # The axis that is not resized is passed with length 1, since the operation processes both.
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(pixels, (1, height, 1, width * 3)),
        size=(size, 1),
        scale=tf.stack([tf.cast(scale, tf.float32), 1.0]),
        translation=tf.stack([-tf.cast(first, tf.float32), 0.0]),
        kernel_type="keyscubic",
        antialias=True,
    )
    pixels = tf.clip_by_value(tf.floor(pixels + 0.5), 0.0, 255.0)
    return tf.reshape(pixels, (size, width, 3))


def read_images(
    image_bytes: tf.Tensor,
    size: Sequence[int],
    crop_ratio: float = 0.875,
    exif_orientation: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and transforms a batch of image files, some of which may not be images.

    Args:
        image_bytes: The files, `(N,)` strings.
        size: `(height, width)`, or `(height, width, channels)` with 1 or 3 channels.
        crop_ratio: As in `evaluation_transform`.
        exif_orientation: As in `decode`.

    Returns:
        float32 `(N, height, width, channels)` and bool `(N,)`: the pixels, 0 where a file could
        not be read, and whether it could.
    """
    *sides, channels = size_with_channels(size)

    def read(encoded):
        return evaluation_transform(decode(encoded, exif_orientation), sides, crop_ratio)

    images, readable = map_good_rows(read, (image_bytes,), _PARALLEL_READS)
    return to_channels(images, channels), readable
