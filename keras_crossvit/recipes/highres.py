"""Fine-tuning at a higher resolution, from the weights at 240 pixels (section 4.1).

    python recipes/train.py --recipe highres --model crossvit_15_dagger \
        --data-dir DATA --output-dir runs/highres --precision mixed_bfloat16

408 pixels are what the paper calls 384, after the large branch; `--set input_size=504` is its
480. Position embeddings are resized bicubically. To start from a run of the recipe `imagenet`:
`--weights runs/imagenet/model.keras`.

Top-1 in the paper (table 4): crossvit_15_dagger 83.5, crossvit_18_dagger 83.9, at 480 84.1 %.
Time, estimated: 30 epochs of four times the work of one at 240, so 0.4 of the recipe
`imagenet`. Neither was measured with this package. The paper gives only the number of epochs;
the learning rate and decay are those of DeiT's fine-tuning at 384, on which it builds.
"""

from keras_crossvit.training.config import TrainConfig

RECIPE = TrainConfig(
    model="crossvit_15_dagger",
    dataset="imagenet2012",
    output_dir="runs/highres",
    epochs=30,
    batch_size=512,
    learning_rate=5e-6,
    learning_rate_batch_size=512,
    weights="imagenet",
    input_size=408,
    crop_ratio=1.0,  # as the published weights at 408 were evaluated
    optimizer="adamw",
    weight_decay=1e-8,
    warmup_epochs=5,
    final_learning_rate=5e-6,
    label_smoothing=0.1,
    drop_path_rate=0.1,
    augment="reference",
    exif_orientation=False,  # the published models never saw an image turned upright
    mixing_batch_size=64,
)
