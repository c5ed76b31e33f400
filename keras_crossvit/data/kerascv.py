"""KerasCV's augmentation; no other file imports keras_cv.

Built in float32 whatever the global policy, since under a mixed one its layers raise.
"""

import keras


def batch_augmentation(magnitude, mixup_alpha):
    """RandAugment and MixUp, as KerasCV has them, on whole batches.

    Args:
        magnitude: Strength of RandAugment's two operations per image, in [0, 1]; 0 for none.
        mixup_alpha: Parameter of MixUp's Beta distribution, positive; 0 for none.

    Returns:
        A function of `(images, labels)`, float32 `(B, H, W, 3)` strictly within 0..255
        (RandAugment's histogram operations index by pixel) and one-hot
        `(B, classes)`, that returns the same two, augmented.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        import keras_cv

        steps = []
        if magnitude > 0:
            steps.append(
                keras_cv.layers.RandAugment(
                    value_range=(0, 255), augmentations_per_image=2, magnitude=magnitude
                )
            )
        if mixup_alpha > 0:
            steps.append(keras_cv.layers.MixUp(alpha=mixup_alpha))
    finally:
        keras.config.set_dtype_policy(policy)

    def augment(images, labels):
        batch = {"images": images, "labels": labels}
        for step in steps:
            batch = step(batch, training=True)
        return batch["images"], batch["labels"]

    return augment
