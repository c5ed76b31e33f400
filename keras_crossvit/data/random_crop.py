"""The random crop and flip that every training picture goes through."""

import tensorflow as tf

_ASPECTS = (3 / 4, 4 / 3)


def random_resized_crop(image, size, area, seed):
    """A random part of a picture, resized: another one for another seed.

    Args:
        image: uint8 `(H, W, 3)`.
        size: `(height, width)` of the result, in pixels.
        area: `(lowest, highest)` share of the picture's area in the part, in (0, 1]; its
            aspect ratio lies between 3/4 and 4/3.
        seed: Two integers that decide the part.

    Returns:
        float32 `(height, width, 3)` in 0..255, bicubic with antialiasing.
    """
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.zeros([1, 0, 4]),  # none: the whole picture may be cut
        seed=seed,
        aspect_ratio_range=_ASPECTS,
        area_range=area,
        use_image_if_no_bounding_boxes=True,
    )
    part = tf.slice(image, begin, extent)
    resized = tf.image.resize(part, size, method="bicubic", antialias=True)
    # Bicubic overshoots at edges; KerasCV's histogram operations index by pixel and raise.
    return tf.ensure_shape(tf.clip_by_value(resized, 0.0, 255.0), [*size, 3])
