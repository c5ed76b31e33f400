"""A small CrossViT on scikit-learn's digits: a whole run in a few minutes.

    python recipes/train.py --recipe digits --output-dir runs/digits

Measured with that command, on 359 held-out images: 98.6, 99.4, 99.4 and 98.1 % with the seeds 0,
1, 3 and 4 on a Zen 5 processor, 99.2, 95.8 and 99.4 % with the seeds 0, 1 and 2 on a Zen 3 (mean
of all 98.6, deviation 1.3), and 98.6 % with seed 0 and KERAS_BACKEND=jax; in three to four minutes
on two cores. Rounding makes the same seed give other weights on another processor, or in another
version: with seed 0 this one gives 98.6 % on the Zen 3.
"""

from keras_crossvit.training.config import TrainConfig

RECIPE = TrainConfig(
    model="crossvit_digits",
    dataset="digits",
    output_dir="runs/digits",
    epochs=25,
    batch_size=16,
    learning_rate=1e-3,
    crop_ratio=1.0,  # the digit fills its image
    weight_decay=0.05,
    warmup_epochs=3,
    label_smoothing=0.0,
    drop_path_rate=0.05,
    augment="kerascv",
    crop_area=(1.0, 1.0),
    horizontal_flip=False,  # a mirrored digit is another symbol
    translation=0.08,
    rotation=11.0,
    randaugment_magnitude=0.0,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
    erasing_probability=0.0,
)
