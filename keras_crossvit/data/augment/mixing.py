"""MixUp and CutMix as timm does them in its mode "batch"."""

import tensorflow as tf

from keras_crossvit.data.augment.draws import Draws
from keras_crossvit.data.augment.groups import for_each_group
from keras_crossvit.data.augment.kerascv_layers import SeededLayer


class BatchMixing(SeededLayer):
    """Mixes each picture of a group with the one at its place from the other end.

    A group has one lambda, drawn from Beta(alpha, alpha), and one choice: MixUp or CutMix,
    each half of the time, or the one whose alpha is not 0. CutMix's box is cut at the border
    of the picture, and its lambda is the share that is left outside the real box.

    Args:
        mixup_alpha: Of MixUp; 0 for none.
        cutmix_alpha: Of CutMix; 0 for none. One of the two is not 0.

    Call arguments:
        inputs: `{"images": float32 (B, H, W, 3), "labels": float32 (B, classes),
            "seed": (G, 2)}`: G groups of equal size, one after the other.

    Returns:
        The same with new images and labels.
    """

    def __init__(self, mixup_alpha=0.8, cutmix_alpha=1.0, **kwargs):
        super().__init__(**kwargs)
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha

    def draw(self, image, seed):
        """`(cut, lambda, box)` of one group; the box is `(top, left, bottom, right)`.

        It is CutMix's, and empty for MixUp.
        """
        draws = Draws(seed)
        cut = draws.uniform([]) < self._share_of_cutmix()
        alpha = tf.where(cut, self.cutmix_alpha, self.mixup_alpha)
        lam = draws.beta(alpha, alpha, [])
        sides = tf.shape(image)[-3:-1]
        size = tf.sqrt(1 - lam) * tf.cast(sides, tf.float32) * tf.cast(cut, tf.float32)
        size = tf.cast(size, tf.int32)
        center = tf.cast(draws.uniform([2]) * tf.cast(sides, tf.float32), tf.int32)
        begin = tf.maximum(center - size // 2, 0)
        end = tf.minimum(center + (size + 1) // 2, sides)
        outside = 1 - tf.reduce_prod(end - begin) / tf.reduce_prod(sides)
        return cut, tf.where(cut, tf.cast(outside, tf.float32), lam), tf.concat([begin, end], 0)

    def _share_of_cutmix(self):
        if self.mixup_alpha > 0 and self.cutmix_alpha > 0:
            return 0.5
        return 1.0 if self.cutmix_alpha > 0 else 0.0

    def _batch_augment(self, inputs):
        images, labels = for_each_group(
            self._mix, inputs["images"], inputs["labels"], inputs["seed"]
        )
        return {**inputs, "images": images, "labels": labels}

    def _mix(self, images, labels, seed):
        cut, lam, box = self.draw(images, seed)
        labels = lam * labels + (1 - lam) * tf.reverse(labels, [0])
        mixed = tf.cond(
            cut,
            lambda: _paste(images, box),
            lambda: images * lam + tf.reverse(images, [0]) * (1 - lam),
        )
        return tf.ensure_shape(mixed, images.shape), labels

    def get_config(self):
        config = {"mixup_alpha": self.mixup_alpha, "cutmix_alpha": self.cutmix_alpha}
        return {**super().get_config(), **config}


def _paste(images, box):
    """The images with the box of those from the other end."""
    top, left, bottom, right = tf.unstack(box)
    rows = images[:, top:bottom]
    pasted = tf.concat(
        [rows[:, :, :left], tf.reverse(rows[:, :, left:right], [0]), rows[:, :, right:]], axis=2
    )
    return tf.concat([images[:, :top], pasted, images[:, bottom:]], axis=1)
