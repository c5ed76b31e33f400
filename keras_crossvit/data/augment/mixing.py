"""MixUp and CutMix as in timm's mode "batch"."""

from collections.abc import Callable

import tensorflow as tf

from keras_crossvit.data.augment.stateless_random import StatelessRandom


def mix_batch(
    images: tf.Tensor,
    labels: tf.Tensor,
    seeds: tf.Tensor,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each image of a group with the one at the same place counted from the group's end.

    A group has one lambda, drawn from Beta(alpha, alpha), and one choice: MixUp or CutMix,
    each half of the time, or the one whose alpha is not 0. CutMix's box is clipped at the border
    of the image, and its lambda is the share that is left outside the clipped box. Where its
    side is odd, timm's box is one pixel smaller.

    Args:
        images: float32 `(B, H, W, 3)`.
        labels: float32 `(B, classes)`.
        seeds: Integers `(G, 2)`, one row for each of G groups of equal size, which follow
            each other in the batch.
        mixup_alpha: Parameter of MixUp; 0 for none.
        cutmix_alpha: Parameter of CutMix; 0 for none. At least one of the two is not 0.

    Returns:
        The mixed images and labels, of the same shapes.
    """

    def mix(images, labels, seed):
        cut, lam, box = draw_mixing(tf.shape(images)[1:3], seed, mixup_alpha, cutmix_alpha)
        labels = lam * labels + (1 - lam) * tf.reverse(labels, [0])
        mixed = tf.cond(
            cut,
            lambda: _with_partners(lambda image, other: _paste(image, other, box), images),
            lambda: _with_partners(lambda image, other: image * lam + other * (1 - lam), images),
        )
        return tf.ensure_shape(mixed, images.shape), labels

    return for_each_group(mix, images, labels, seeds)


def draw_mixing(
    sides: tf.Tensor, seed: tf.Tensor, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """How `mix_batch` mixes a group: `(cut, lambda, box)`.

    Args:
        sides: Height and width of the images, int32 `(2,)`.
        seed: Two integers.
        mixup_alpha: As in `mix_batch`.
        cutmix_alpha: As in `mix_batch`.

    Returns:
        Whether it is CutMix; lambda, float32; and CutMix's box, `(top, left, bottom, right)`,
        int32, which is empty for MixUp.
    """
    random = StatelessRandom(seed)
    cut = random.uniform([]) < _share_of_cutmix(mixup_alpha, cutmix_alpha)
    alpha = tf.where(cut, float(cutmix_alpha), float(mixup_alpha))
    lam = random.beta(alpha, alpha, [])
    size = tf.sqrt(1 - lam) * tf.cast(sides, tf.float32) * tf.cast(cut, tf.float32)
    size = tf.cast(size, tf.int32)
    center = tf.cast(random.uniform([2]) * tf.cast(sides, tf.float32), tf.int32)
    begin = tf.maximum(center - size // 2, 0)
    end = tf.minimum(center + (size + 1) // 2, sides)
    outside = 1 - tf.reduce_prod(end - begin) / tf.reduce_prod(sides)
    return cut, tf.where(cut, tf.cast(outside, tf.float32), lam), tf.concat([begin, end], 0)


def _share_of_cutmix(mixup_alpha, cutmix_alpha):
    if mixup_alpha > 0 and cutmix_alpha > 0:
        return 0.5
    return 1.0 if cutmix_alpha > 0 else 0.0


def _with_partners(function, images):
    """`function(image, partner)` of each image of a group.

    One at a time: the results for one image stay in the processor's cache; those for a whole
    batch do not, and would take nearly twice as long.
    """
    last = tf.shape(images)[0] - 1
    return tf.map_fn(
        lambda row: function(images[row], images[last - row]),
        tf.range(last + 1),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec(images.shape[1:], images.dtype),
    )


def _paste(image, other, box):
    """The image with the box taken from the other."""
    top, left, bottom, right = tf.unstack(box)
    rows = image[top:bottom]
    rows = tf.concat([rows[:, :left], other[top:bottom, left:right], rows[:, right:]], axis=1)
    return tf.ensure_shape(tf.concat([image[:top], rows, image[bottom:]], axis=0), image.shape)


def for_each_group(
    function: Callable, images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """`function(images, labels, seed)` on each of the equal groups, one for each seed.

    Args:
        function: Returns images and labels of the shapes that it is given.
        images: `(B, H, W, 3)`.
        labels: `(B, classes)`.
        seeds: `(G, 2)` with G known, a divisor of B.

    Returns:
        Images and labels of the whole batch.

    Raises:
        ValueError: If the number of seeds is not known, or does not divide a known B.
    """
    count, size = seeds.shape[0], images.shape[0]
    if count is None or (size is not None and size % count):
        raise ValueError(
            "`seeds` must have a known number of rows, one for each group, which divides the "
            f"batch. Received: seeds of shape {seeds.shape}, images of shape {images.shape}"
        )
    groups = zip(tf.split(images, count), tf.split(labels, count), tf.unstack(seeds), strict=True)
    images, labels = zip(*(function(*group) for group in groups), strict=True)
    return tf.concat(images, 0), tf.concat(labels, 0)
