"""The orientation that a camera records in a file: read from its bytes, applied to its pixels.

TensorFlow graph functions, so that a server without Python turns images just as training did.
"""

import tensorflow as tf

from keras_crossvit.common.tf_data import graph_function, noinline
from keras_crossvit.data.formats import has, padded_bytes, webp_chunk

_LITTLE_ENDIAN, _BIG_ENDIAN = b"II*\0", b"MM\0*"  # what a TIFF header begins with
_TAG, _SHORT, _LONG = 0x0112, 3, 4  # the orientation's number and the types of its value
_MAX_ENTRIES = 128  # of a directory; cameras write about a dozen
_MAX_SEGMENTS = 32  # of a JPEG before its EXIF, which should come first
_NOWHERE = 2**62  # a position after the end of any file

# Of the orientations 1 (upright) to 8, those that exchange the axes, and those that then mirror
# left and right, or top and bottom.
_EXCHANGED, _MIRRORED, _FLIPPED = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


@graph_function
def read_orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, PNG or WebP, int64, 1 to 8.

    It is 1, upright, for a file of another format, without EXIF or with broken EXIF.
    """
    finders = {
        (0, b"\xff\xd8\xff"): _find_in_jpeg,
        (0, b"\x89PNG"): _find_in_png,
        (8, b"WEBP"): _find_in_webp,
    }
    branches = [
        (has(image_bytes, position, magic), lambda find=find: find(image_bytes))
        for (position, magic), find in finders.items()
    ]
    at = tf.case(branches, default=lambda: tf.constant(_NOWHERE, tf.int64))
    return tf.cond(at < _NOWHERE, lambda: _read(image_bytes, at), lambda: tf.constant(1, tf.int64))


def oriented(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image upright.

    Args:
        pixels: `(H, W, 3)`, as stored.
        orientation: As returned by `read_orientation`.

    Returns:
        `(H, W, 3)`, or `(W, H, 3)` if the orientation exchanges the axes.
    """
    turned = tf.cond(orientation > 1, lambda: _turn(pixels, orientation), lambda: pixels)
    turned.set_shape([None, None, pixels.shape[2]])
    return turned


def oriented_sides(sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Height and width of an image once it is upright, from those stored."""
    return tf.where(_is_one_of(orientation, _EXCHANGED), sides[::-1], sides)


def stored_box(box: tf.Tensor, sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Where a part of the upright image is stored.

    Args:
        box: `(top, left, height, width)` in the upright image, int32.
        sides: Height and width of the upright image, int32 `(2,)`.
        orientation: As returned by `read_orientation`.

    Returns:
        `(top, left, height, width)` in the image as it is stored, int32.
    """
    return tf.cond(orientation > 1, lambda: _stored(box, sides, orientation), lambda: box)


@noinline
def _turn(pixels, orientation):
    exchanged = _is_one_of(orientation, _EXCHANGED)
    pixels = tf.cond(exchanged, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    axes = [_is_one_of(orientation, _FLIPPED), _is_one_of(orientation, _MIRRORED), False]
    return tf.raw_ops.Reverse(tensor=pixels, dims=tf.stack(axes))


@noinline
def _stored(box, sides, orientation):
    first, size = box[:2], box[2:]
    back = [_is_one_of(orientation, axis) for axis in (_FLIPPED, _MIRRORED)]
    first = tf.where(tf.stack(back), sides - first - size, first)
    order = tf.where(_is_one_of(orientation, _EXCHANGED), [1, 0], [0, 1])
    return tf.concat([tf.gather(first, order), tf.gather(size, order)], axis=0)


def _find_in_jpeg(image_bytes):
    """Where the TIFF header of the EXIF is."""

    def is_exif(at):
        return has(image_bytes, at, b"\xff\xe1") & has(image_bytes, at + 4, b"Exif\0\0")

    def after(at):
        length = padded_bytes(image_bytes, at + 2, 2)
        return at + 2 + 256 * length[0] + length[1]

    def is_other(at):
        """Whether an application segment other than the EXIF, or a comment, begins here."""
        marker = padded_bytes(image_bytes, at, 2)
        known = (marker[1] >= 0xE0) & (marker[1] <= 0xEF) | (marker[1] == 0xFE)
        return (marker[0] == 0xFF) & known & ~is_exif(at)

    def walk(at):
        go_on = {"cond": is_other, "body": lambda at: (after(at),), "loop_vars": (at,)}
        return tf.while_loop(**go_on, maximum_iterations=_MAX_SEGMENTS)[0]

    # Most files have it first, or after a JFIF header, or not at all: a loop would cost more.
    first = tf.constant(2, tf.int64)
    at = tf.where(has(image_bytes, first, b"\xff\xe0"), after(first), first)
    at = tf.cond(is_other(at), lambda: noinline(walk)(at), lambda: at)
    return tf.where(is_exif(at), at + 10, _NOWHERE)


@noinline
def _find_in_png(image_bytes):
    # The chunk's name alone may also be in a text before it.
    names = b"eXIf" + _LITTLE_ENDIAN, b"eXIf" + _BIG_ENDIAN
    splits = [tf.raw_ops.StringSplitV2(input=[image_bytes], sep=x, maxsplit=1) for x in names]
    before = tf.strings.length(tf.concat([split.values[:1] for split in splits], axis=0))
    at = tf.cast(tf.reduce_min(before), tf.int64)
    return tf.where(has(image_bytes, at, b"eXIf"), at + 4, _NOWHERE)


@noinline
def _find_in_webp(image_bytes):
    at, name, _ = webp_chunk(image_bytes, (b"EXIF",), 12)
    begin = at + 8
    begin = tf.where(has(image_bytes, begin, b"Exif\0\0"), begin + 6, begin)  # as in a JPEG
    return tf.where(name == b"EXIF", begin, _NOWHERE)


@noinline
def _read(image_bytes, at):
    """The orientation in the EXIF whose TIFF header is at byte `at`."""
    little_endian = has(image_bytes, at, _LITTLE_ENDIAN)

    def number(stored):
        """`(..., count)` bytes to a whole number `(...)`."""
        factors = tf.constant([256**power for power in range(stored.shape[-1])], tf.int64)
        return tf.reduce_sum(stored * tf.where(little_endian, factors, factors[::-1]), axis=-1)

    directory = at + number(padded_bytes(image_bytes, at + 4, 4))
    count = number(padded_bytes(image_bytes, directory, 2))
    entries = tf.reshape(padded_bytes(image_bytes, directory + 2, 12 * _MAX_ENTRIES), [-1, 12])
    bounds = [(0, 2), (2, 4), (4, 8), (8, 10), (8, 12)]
    tags, types, counts, short, long = (number(entries[:, first:end]) for first, end in bounds)
    values = tf.where(types == _LONG, long, short)
    there = (tags == _TAG) & ((types == _SHORT) | (types == _LONG)) & (counts == 1) & (values <= 8)
    there &= tf.range(_MAX_ENTRIES, dtype=tf.int64) < count
    there &= little_endian | has(image_bytes, at, _BIG_ENDIAN)
    return tf.reduce_max(tf.where(there, tf.maximum(values, 1), 1))


def _is_one_of(orientation, orientations):
    return tf.reduce_any(orientation == tf.constant(orientations, tf.int64))
