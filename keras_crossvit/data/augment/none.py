"""No augmentation: pictures as they were cropped."""

import tensorflow as tf

from keras_crossvit.data.augment import Augmentation


def make(config):
    """An `Augmentation` that changes nothing but the dtype."""

    def image(pixels, seed):
        return tf.cast(pixels, tf.float32)

    def batch(images, labels, seeds):
        return images, labels

    return Augmentation(image, batch)
