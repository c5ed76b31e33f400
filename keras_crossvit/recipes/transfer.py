"""Fine-tuning the whole pretrained model on another data set (table 9, "transfer"; table 5).

    python recipes/train.py --recipe transfer --dataset cifar10 --output-dir runs/cifar10
    python recipes/train.py --recipe transfer --dataset folder:PICTURES --output-dir runs/mine \
        --epochs 50 --batch-size 64 --set learning_rate_batch_size=768

A folder of a few hundred pictures is learnt in far fewer epochs. `--set lora_rank=8` trains
low-rank changes of the attention projections, the norms and the heads alone, with less memory;
the changes are merged into the exported weights.

Top-1 in the paper after 1,000 epochs (table 5), CrossViT-15 and -18: CIFAR-10 99.00 and 99.11,
CIFAR-100 90.77 and 91.36, Pet 94.55 and 95.07 %. Time: as for the same number of images in the
recipe `imagenet`. Neither was measured with this package.
"""

from keras_crossvit.training.config import TrainConfig

RECIPE = TrainConfig(
    model="crossvit_15",
    dataset="cifar10",
    output_dir="runs/transfer",
    epochs=1000,
    batch_size=768,
    learning_rate=0.01,
    weights="imagenet",
    optimizer="sgd",
    weight_decay=1e-4,
    warmup_epochs=5,
    label_smoothing=0.1,
    drop_path_rate=0.1,
    augment="reference",
)
