"""scikit-learn's handwritten digits as a TensorFlow dataset: the smallest real image data."""

import numpy as np
import tensorflow_datasets as tfds

_EVERY = 5  # every fifth image is held out


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 digits of 8 x 8 pixels that scikit-learn carries (UCI, Alpaydin and Kaynak).

    Splits: `train` (1,438 images) and `test` (359: every fifth). Registered with
    tensorflow-datasets under the name "digits", so that it is used like any other.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8 x 8 pixels, 16 shades of grey, 10 classes.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits

        digits = load_digits()
        # Shades 0..16 become 0..255, rounded, because 255 / 16 is not a whole number.
        images = np.rint(digits.images * (255 / 16)).astype("uint8")[..., None]
        held_out = np.arange(len(images)) % _EVERY == _EVERY - 1
        return {
            "train": self._generate_examples(images[~held_out], digits.target[~held_out]),
            "test": self._generate_examples(images[held_out], digits.target[held_out]),
        }

    def _generate_examples(self, images, labels):
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield key, {"image": image, "label": int(label)}
