"""KerasCV's augmentation; no other file imports keras_cv.

Built in float32 whatever the global policy, since under a mixed one its layers raise.
"""

import keras


def batch_augmentation(config):
    """Shift, rotation, RandAugment and MixUp, as KerasCV has them, on whole batches.

    Args:
        config: A `TrainConfig`: `translation`, `rotation`, `randaugment_magnitude` and
            `mixup_alpha` are used; 0 leaves a step out.

    Returns:
        A function of `(images, labels)`, float32 `(B, H, W, 3)` strictly within 0..255
        (RandAugment's histogram operations index by pixel) and one-hot `(B, classes)`, that
        returns the same two, augmented.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        steps = _steps(config)
    finally:
        keras.config.set_dtype_policy(policy)

    def augment(images, labels):
        batch = {"images": images, "labels": labels}
        for step in steps:
            batch = step(batch, training=True)
        return batch["images"], batch["labels"]

    return augment


def _steps(config):
    import keras_cv

    layers = keras_cv.layers
    steps = []
    if config.translation > 0:
        shift = config.translation
        steps.append(layers.RandomTranslation(shift, shift, fill_mode="constant"))
    if config.rotation > 0:
        steps.append(layers.RandomRotation(config.rotation / 360, fill_mode="constant"))
    if config.randaugment_magnitude > 0:
        magnitude = config.randaugment_magnitude
        steps.append(layers.RandAugment((0, 255), augmentations_per_image=2, magnitude=magnitude))
    if config.mixup_alpha > 0:
        steps.append(layers.MixUp(alpha=config.mixup_alpha))
    return steps
