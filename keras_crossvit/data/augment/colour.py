"""Operations on the colours of an image, pixel by pixel as PIL computes them.

All take and return uint8 `(H, W, 3)` with known sides. Where arithmetic
gives the same numbers as a look-up table, it is used, because it is several times faster.
"""

import numpy as np
import tensorflow as tf

_GREY = np.array([19595, 38470, 7471], np.float32)  # of 65536; ITU-R 601-2, as PIL rounds it


def auto_contrast(pixels: tf.Tensor) -> tf.Tensor:
    """Stretches each channel, so that its darkest value becomes 0 and its brightest 255."""
    height, width = pixels.shape[:2]
    rows = tf.reshape(pixels, [height, width * 3])
    low, high = (
        tf.cast(extreme(tf.reshape(extreme(rows, 0), [width, 3]), 0), tf.float64)
        for extreme in (tf.reduce_min, tf.reduce_max)
    )
    flat = low >= high
    # In float64, and with scale and offset separate, as in PIL: otherwise some values come out
    # one lower.
    scale = tf.where(flat, tf.ones_like(low), 255 / (high - low))
    offset = tf.where(flat, tf.zeros_like(low), -low * scale)
    stretched = tf.cast(rows, tf.float64) * tf.tile(scale, [width]) + tf.tile(offset, [width])
    return tf.reshape(tf.cast(stretched, tf.uint8), pixels.shape)


def equalize(pixels: tf.Tensor) -> tf.Tensor:
    """Gives each channel a flat histogram."""
    height, width = pixels.shape[:2]
    at = tf.cast(tf.reshape(pixels, [height, width * 3]), tf.int32)
    at += np.tile(np.array([0, 256, 512], np.int32), width)
    counts = tf.reshape(tf.math.bincount(at, minlength=768, maxlength=768), [3, 256])
    brightest = 255 - tf.argmax(tf.cast(tf.reverse(counts, [1]) > 0, tf.int32), 1)
    step = (height * width - tf.gather(counts, brightest, batch_dims=1)[:, None]) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = (step // 2 + below) // tf.maximum(step, 1)
    table = tf.where(step == 0, tf.range(256), tf.minimum(table, 255))
    table = tf.reshape(tf.cast(table, tf.uint8), [768])
    return tf.reshape(tf.gather(table, at), pixels.shape)


def invert(pixels: tf.Tensor) -> tf.Tensor:
    """The negative."""
    return 255 - pixels


def posterize(pixels: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the upper `bits` of each value, 0 to 8: with 0 bits the image is black."""
    dropped = tf.bitwise.left_shift(1, 8 - bits) - 1
    return tf.bitwise.bitwise_and(pixels, tf.cast(255 - dropped, tf.uint8))


def solarize(pixels: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts the values that are at least `threshold`, 0 to 256."""
    inverted = tf.cast(pixels, tf.int16) >= tf.cast(threshold, tf.int16)
    return tf.bitwise.bitwise_xor(pixels, tf.cast(inverted, tf.uint8) * 255)


def solarize_add(pixels: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    """Adds `addition`, 0 to 128, to the values below 128."""
    return pixels + tf.cast(pixels < 128, tf.uint8) * tf.cast(addition, tf.uint8)


def colour(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between the grey image (0), the image itself (1) and more colour (above 1)."""
    return _blend(_grey(pixels), tf.cast(pixels, tf.float32), factor)


def contrast(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between the mean grey (0), the image itself (1) and more contrast (above 1)."""
    height, width = pixels.shape[:2]
    rows = tf.reduce_sum(tf.reshape(_grey(pixels), [height, width * 3]), 1)
    # The sum of a row is exact in float32; that of the whole image is not.
    mean = tf.reduce_sum(tf.cast(rows, tf.float64)) / (height * width * 3)
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), tf.cast(pixels, tf.float32), factor)


def brightness(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between black (0), the image itself (1) and a brighter one (above 1)."""
    return _blend(0.0, tf.cast(pixels, tf.float32), factor)


def sharpness(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between the blurred image (0), the image itself (1) and a sharper one (above 1).

    The outermost pixels stay as they are.
    """
    height, width = pixels.shape[:2]
    original = tf.reshape(tf.cast(pixels, tf.float32), [height, width * 3])
    # Each pixel and the eight around it, the pixel itself five times: two sums of three, which
    # are exact, in a sixth of the time of a convolution of three channels.
    columns = original[:-2] + original[1:-1] + original[2:]
    middle = original[1:-1, 3:-3]
    sums = columns[:, :-6] + columns[:, 3:-3] + columns[:, 6:] + 4 * middle
    detail = middle - tf.floor(sums / 13 + 0.5)
    blurred = original - tf.pad(detail, [[1, 1], [3, 3]])
    return tf.reshape(_blend(blurred, original, factor), pixels.shape)


def _grey(pixels):
    """The grey value in all three channels: whole numbers, float32 `(H, W, 3)`."""
    flat = tf.reshape(tf.cast(pixels, tf.float32), [-1, 3])
    # Sums stay below 2**24, so they are exact.
    sums = tf.matmul(flat, np.tile(_GREY[:, None], [1, 3]))
    return tf.reshape(tf.floor((sums + 2.0**15) * 2.0**-16), pixels.shape)


def _blend(none, all_, factor):
    """PIL's blend: `none` at factor 0, `all_` at 1, clipped and rounded down."""
    blended = none + tf.cast(factor, tf.float32) * (all_ - none)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)
