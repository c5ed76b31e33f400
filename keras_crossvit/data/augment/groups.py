"""Groups of a batch, each treated by itself."""

import tensorflow as tf


def for_each_group(function, images, labels, seeds):
    """`function(images, labels, seed)` on each of as many equal groups as there are seeds.

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
            "`seeds` must be of a number that divides the batch, one for each group. "
            f"Received: seeds of shape {seeds.shape}, images of shape {images.shape}"
        )
    groups = zip(tf.split(images, count), tf.split(labels, count), tf.unstack(seeds), strict=True)
    images, labels = zip(*(function(*group) for group in groups), strict=True)
    return tf.concat(images, 0), tf.concat(labels, 0)
