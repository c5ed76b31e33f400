"""A run of a few seconds: a CrossViT of a few thousand parameters on the first digits.

    python -m tests.training.tiny --recipe tiny --output-dir run [...]

is `recipes/train.py` with this recipe; it also writes the final weights as `weights.npz` in the
working directory. `TINY_DEVICES` is the number of logical devices; with `TINY_EXPORT=0` the run
ends without an export, whose graphs take longer to make than the run; `TINY_STOP` is a step after
which the process sends itself SIGTERM.
"""

import tests.no_garbage  # noqa: F401

# isort: split

import functools
import os
import signal

import numpy as np
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.data.sources import MemorySplit, Source
from keras_crossvit.training import TrainConfig, cli, finish, main
from tests.base import small_config

# One stage with one encoder for each branch, since most of the time goes into making its graphs.
ENCODER = kc.BranchConfig(32, 16, embed_dim=24, depth=1, num_heads=3, mlp_ratio=2)
MODEL = kc.register_preset("tiny_test_model")(small_config(num_stages=1, large=ENCODER))

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
STEPS = 11  # of an epoch


def data(class_names=("a", "b"), train=176, validation=20):
    """Files without a byte, for tests that read none."""
    splits = [MemorySplit([b""] * size, [0] * size) for size in (train, validation)]
    return Source("folder:pets", class_names, *splits)


def run():
    devices = int(os.environ.get("TINY_DEVICES", "1"))
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * devices
        )
    if os.environ.get("TINY_EXPORT") == "0":
        finish._export = lambda model, saved, exports, options: str(exports)
        cli.classify_held_out_picture = lambda *arguments: ("nothing", "nothing", [("none", 0.0)])
    stop = int(os.environ.get("TINY_STOP", "0"))
    if stop:

        def end(step, means):
            if step >= stop:
                os.kill(os.getpid(), signal.SIGTERM)

        cli.train = functools.partial(cli.train, on_step=end)
    result = main({"tiny": RECIPE})
    if result is not None:
        np.savez("weights.npz", *[np.asarray(variable) for variable in result["model"].weights])


if __name__ == "__main__":
    run()
