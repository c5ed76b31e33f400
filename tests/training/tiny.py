"""A run of seconds: a CrossViT of a few thousand parameters on the first digits.

    python -m tests.training.tiny --recipe tiny --output-dir run [...]

is `recipes/train.py` with this recipe; it also writes the final weights as `weights.npz` in the
working directory. `TINY_DEVICES` is the number of logical devices.
"""

import os

import numpy as np
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.training import TrainConfig, main
from tests.base import small_config

# One stage, since most of the time goes into making its graphs.
MODEL = kc.register_preset("tiny_test_model")(small_config(num_stages=1))

RECIPE = TrainConfig(
    model="tiny_test_model",
    dataset="digits",
    output_dir="run",
    train_split="train[:176]",
    validation_split="test[:50]",
    epochs=2,
    batch_size=16,
    learning_rate=1e-3,
    warmup_epochs=1,
    augment="reference",
    randaugment_magnitude=0,  # its graph takes seconds to make
    mixing_batch_size=8,
    ema_momentum=0.9,
    clip_norm=1.0,
)


def run():
    devices = int(os.environ.get("TINY_DEVICES", "1"))
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * devices
        )
    result = main({"tiny": RECIPE})
    if result is not None:
        np.savez("weights.npz", *[np.asarray(variable) for variable in result["model"].weights])


if __name__ == "__main__":
    run()
