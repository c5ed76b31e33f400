"""stub"""

import tensorflow as tf
from keras_crossvit.data.images import decode


def random_resized_crop(image_bytes, size, area, seed, horizontal_flip=True):
    image = decode(image_bytes)
    return tf.ensure_shape(
        tf.clip_by_value(
            tf.round(tf.image.resize(image, size, method="bicubic", antialias=True)), 0, 255
        ),
        [*size, 3],
    )
