"""The paper's main results (section 4.1; table 9, "main results").

    python recipes/train.py --recipe imagenet --model crossvit_15_dagger \
        --data-dir DATA --output-dir runs/imagenet --precision mixed_bfloat16

Any model of tables 1 and 7; CrossViT-18 and 18 dagger with `--set repeated_augmentation=3`.
The batch of 4,096 is what 32 GPUs hold; with fewer, `--set accumulation_steps=N` computes it in N
parts, or take a smaller `--batch-size`: the learning rate follows.

Top-1 in the paper (tables 2 and 7): crossvit_tiny 73.4, crossvit_small 81.0, crossvit_base
82.2, crossvit_9 73.9, crossvit_15 81.5, crossvit_18 82.5, crossvit_9_dagger 77.1,
crossvit_15_dagger 82.3, crossvit_18_dagger 82.8 %. Time, estimated: a training step costs
about three times as much as inference, for which the paper measured 626 images/s with
crossvit_15_dagger on a V100: 16 hours on 32 of them. Neither was measured with this package.
"""

from keras_crossvit.training.config import TrainConfig

RECIPE = TrainConfig(
    model="crossvit_15_dagger",
    dataset="imagenet2012",
    output_dir="runs/imagenet",
    epochs=300,
    batch_size=4096,
    learning_rate=0.0005,  # 0.004 at 4,096
    learning_rate_batch_size=512,
    optimizer="adamw",
    weight_decay=0.05,
    warmup_epochs=30,
    final_learning_rate=0.00000125,  # 0.00001 at 4,096
    label_smoothing=0.1,
    drop_path_rate=0.1,
    augment="reference",
    exif_orientation=False,  # the published models never saw an image turned upright
    crop_area=(0.08, 1.0),
    horizontal_flip=True,
    randaugment_magnitude=9,
    randaugment_num_ops=2,
    randaugment_std=0.5,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
    mixing_batch_size=128,  # what each of the authors' GPUs mixed in the same way
    erasing_probability=0.25,
)
