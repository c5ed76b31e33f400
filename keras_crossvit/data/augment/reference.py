"""The policy that made the published numbers: RandAugment, random erasing, MixUp and CutMix.

That of DeiT, as the authors took it (section 4.1), in timm's terms `rand-m9-mstd0.5-inc1`,
`reprob=0.25` in mode "pixel", `mixup=0.8` and `cutmix=1.0` in mode "batch".
"""

import tensorflow as tf

from keras_crossvit.data.augment import Augmentation
from keras_crossvit.data.augment.erasing import RandomErasing
from keras_crossvit.data.augment.mixing import BatchMixing
from keras_crossvit.data.augment.randaugment import ReferenceRandAugment


def make(config):
    """An `Augmentation` of the reference's steps; 0 leaves a step out.

    Raises:
        ValueError: If `translation` or `rotation` is not 0, which are of "kerascv".
    """
    for name in ("translation", "rotation"):
        if getattr(config, name) != 0:
            raise ValueError(
                f'`{name}` must be 0 with augment="reference", which has no such step. '
                f"Received: {name}={getattr(config, name)}"
            )
    randaugment = ReferenceRandAugment(
        config.randaugment_num_ops, config.randaugment_magnitude, config.randaugment_std
    )
    erasing = RandomErasing(config.erasing_probability)
    mixing = BatchMixing(config.mixup_alpha, config.cutmix_alpha)

    def image(pixels, seed):
        seeds = [tf.random.experimental.stateless_fold_in(seed, i) for i in (2, 3)]
        if config.randaugment_magnitude > 0:
            pixels = randaugment({"images": pixels, "seed": seeds[0]})["images"]
        pixels = tf.cast(pixels, tf.float32)
        if config.erasing_probability > 0:
            pixels = erasing({"images": pixels, "seed": seeds[1]})["images"]
        return pixels

    def batch(images, labels, seeds):
        if config.mixup_alpha == config.cutmix_alpha == 0:
            return images, labels
        mixed = mixing({"images": images, "labels": labels, "seed": seeds})
        return mixed["images"], mixed["labels"]

    return Augmentation(image, batch)
