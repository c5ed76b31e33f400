"""The random crop and flip that every training image goes through."""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_crossvit.data.exif import (
    oriented,
    oriented_sides,
    read_orientation,
    stored_box,
)
from keras_crossvit.data.formats import decode_jpeg_part, is_whole_jpeg, jpeg_sides
from keras_crossvit.data.images import decode

_ASPECTS = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def random_resized_crop(
    image_bytes: tf.Tensor,
    size: Sequence[int],
    area: Sequence[float],
    seed: tf.Tensor | Sequence[int],
    horizontal_flip: bool = True,
    exif_orientation: bool = True,
) -> tf.Tensor:
    """A random part of an image file, resized; the seed decides which part.

    The part is drawn as in torchvision's and timm's RandomResizedCrop: ten attempts with a
    uniform area and a log-uniform aspect ratio, otherwise the largest central part with an
    allowed aspect ratio. Only this part of a JPEG is decoded. It is resized as in PIL: bicubic
    (a = -0.5) with antialiasing, rows first, rounded after each pass.

    Args:
        image_bytes: The file, as in `images.decode`; a scalar string.
        size: `(height, width)` of the result, in pixels, known integers.
        area: `(lowest, highest)` share of the image's area in the part, in (0, 1]; the part's
            aspect ratio lies between 3/4 and 4/3. `(1.0, 1.0)` takes all of a square image.
        seed: Two integers that decide the part and the flip.
        horizontal_flip: Whether the part is mirrored with probability 1/2.
        exif_orientation: As in `images.decode`.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: As in `images.decode`.
    """
    image_bytes = tf.convert_to_tensor(image_bytes)  # or functions are traced for each file
    crop_seed, flip_seed = (tf.random.experimental.stateless_fold_in(seed, i) for i in (0, 1))

    def part_of_jpeg():
        sides = jpeg_sides(image_bytes)
        if not exif_orientation:
            return decode_jpeg_part(image_bytes, _draw_box(sides, area, crop_seed))
        with tf.control_dependencies([sides]):  # as in `decode`
            orientation = read_orientation(image_bytes)
        sides = oriented_sides(sides, orientation)
        box = stored_box(_draw_box(sides, area, crop_seed), sides, orientation)
        return oriented(decode_jpeg_part(image_bytes, box), orientation)

    def part_of_other():
        pixels = decode(image_bytes, exif_orientation)
        box = _draw_box(tf.shape(pixels)[:2], area, crop_seed)
        return tf.slice(pixels, [box[0], box[1], 0], [box[2], box[3], 3])

    part = tf.cond(is_whole_jpeg(image_bytes), part_of_jpeg, part_of_other)
    part.set_shape([None, None, 3])
    height, width = size
    # Transposed with the channels separated, because single bytes are quicker to transpose than
    # pixels of three bytes.
    rows = tf.shape(part)[0]
    pixels = _resize_first_axis(tf.transpose(tf.reshape(part, [rows, -1])), width, 3)
    columns = tf.range(width)
    if horizontal_flip:
        flipped = tf.random.stateless_uniform([], flip_seed) < 0.5
        columns = tf.where(flipped, columns[::-1], columns)
    pixels = tf.reshape(tf.gather(pixels, columns), [width * 3, rows])
    return tf.reshape(_resize_first_axis(tf.transpose(pixels), height), [height, width, 3])


def _draw_box(sides, area, seed):
    """Where the part lies: `(top, left, height, width)`, int32 `(4,)`."""
    sides = tf.cast(sides, tf.float32)
    draws = tf.random.stateless_uniform([4, _ATTEMPTS], seed)
    wanted = (area[0] + (area[1] - area[0]) * draws[0]) * sides[0] * sides[1]
    low, high = (math.log(aspect) for aspect in _ASPECTS)
    aspect = tf.exp(low + (high - low) * draws[1])
    parts = tf.round(tf.sqrt(tf.stack([wanted / aspect, wanted * aspect], axis=1)))
    parts = tf.maximum(parts, 1.0)
    free = sides - parts
    offsets = tf.floor(tf.transpose(draws[2:]) * (free + 1))
    fits = tf.reduce_all(free >= 0, axis=1)

    # If none fits, as much of the middle as the aspect ratio allows.
    aspects = tf.stack([1 / _ASPECTS[0], _ASPECTS[1]])
    middle = tf.minimum(sides, tf.round(sides[::-1] * aspects))
    boxes = tf.concat([offsets, parts], axis=1)
    boxes = tf.concat([boxes, [tf.concat([(sides - middle) // 2, middle], 0)]], axis=0)
    first = tf.argmax(tf.concat([fits, [True]], axis=0))
    return tf.cast(boxes[first], tf.int32)


def _resize_first_axis(pixels, size, groups=1):
    """uint8 `(N * groups, M)` to `(size, M * groups)`.

    The first axis is the fast one: along it, the pixels of a row are summed side by side.

    Args:
        pixels: uint8.
        size: New length, known.
        groups: Number of consecutive rows that share one place along the axis.
    """
    rows, columns = tf.unstack(tf.shape(pixels))
    length = rows // groups
    # The axis that is not resized is passed with length 1, since the operation processes both.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(pixels, [1, length, 1, columns * groups]),
        size=(size, 1),
        scale=tf.stack([size / tf.cast(length, tf.float32), 1.0]),
        translation=tf.zeros([2]),
        kernel_type="keyscubic",
        antialias=True,
    )
    # Rounds (halves up) and clips in one operation.
    resized = tf.raw_ops.QuantizeV2(input=resized, min_range=0.0, max_range=255.0, T=tf.quint8)
    return tf.reshape(tf.bitcast(resized.output, tf.uint8), [size, columns * groups])
