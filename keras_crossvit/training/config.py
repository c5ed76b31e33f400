"""The values of a training run."""

import dataclasses
import json
import pathlib

from keras_crossvit.layers.checks import check_choice, check_positive_int, check_rate


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run; a recipe is one of these.

    Args:
        model: Name of a preset.
        dataset: As in `open_source`.
        output_dir: Where the run writes.
        epochs: Passes over the training split.
        batch_size: Pictures per step, over all replicas together.
        learning_rate: Highest learning rate, reached after the warm-up.
        data_dir: Where tensorflow-datasets keeps its data; `None` for its default.
        weights: Weights to start from, as in `CrossViT`.
        input_size: Side of the model's input, in pixels; `None` for the preset's.
        crop_ratio: Part of the resized picture's shorter side that the evaluation crop keeps.
        weight_decay: AdamW's decay of kernels.
        warmup_epochs: Epochs in which the learning rate rises linearly from 0.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        drop_path_rate: As in `CrossViT`.
        crop_area: Lowest and highest share of a picture's area in a random training crop.
        horizontal_flip: Whether half of the training pictures are mirrored.
        translation: Largest shift of a training picture, as a share of its sides, in [0, 1).
        rotation: Largest rotation of a training picture either way, in degrees, from 0; what
            shift and rotation uncover is black.
        randaugment_magnitude: Strength of RandAugment, in [0, 1]; 0 for none.
        mixup_alpha: Parameter of MixUp; 0 for none.
        strategy: "none", "mirrored" (all GPUs of this machine) or "auto" (mirrored if there
            is more than one GPU).
        precision: Keras dtype policy of the model.
        seed: Seed of weights, data order and augmentation.

    Raises:
        ValueError: If a value is outside its range.
    """

    model: str
    dataset: str
    output_dir: str
    epochs: int
    batch_size: int
    learning_rate: float
    data_dir: str | None = None
    weights: str | None = None
    input_size: int | None = None
    crop_ratio: float = 0.875
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    label_smoothing: float = 0.1
    drop_path_rate: float = 0.1
    crop_area: tuple = (0.08, 1.0)
    horizontal_flip: bool = True
    translation: float = 0.0
    rotation: float = 0.0
    randaugment_magnitude: float = 0.3
    mixup_alpha: float = 0.2
    strategy: str = "auto"
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            check_positive_int(name, getattr(self, name))
        for name in ("label_smoothing", "drop_path_rate", "translation"):
            check_rate(name, getattr(self, name))
        check_choice("strategy", self.strategy, {"auto", "none", "mirrored"})
        check_choice("precision", self.precision, {"float32", "mixed_bfloat16", "mixed_float16"})
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(
                "`crop_area` must be two shares with 0 < lowest <= highest <= 1. "
                f"Received: crop_area={self.crop_area}"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"`warmup_epochs` must be at least 0 and less than epochs={self.epochs}. "
                f"Received: warmup_epochs={self.warmup_epochs}"
            )

    def save(self, path):
        """Writes the values as JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        pathlib.Path(path).write_text(text + "\n", encoding="utf-8")
