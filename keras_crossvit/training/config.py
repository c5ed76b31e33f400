"""The values of a training run."""

import dataclasses

from keras_crossvit.common.checks import (
    check_choice,
    check_not_negative,
    check_positive,
    check_positive_int,
    check_rate,
)
from keras_crossvit.common.files import write_json

STRATEGIES = ("auto", "none", "mirrored", "multiworker", "tpu")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
AUGMENTATIONS = ("none", "kerascv", "reference")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run; a recipe is one of these.

    Defaults are those of the paper's main results (section 4.1, table 9), where it has them.

    Args:
        model: Name of a preset.
        dataset: As in `open_source`.
        output_dir: Where the run writes, and finds its checkpoints when it is started again.
        epochs: Passes over the training split.
        batch_size: Pictures per step, over all replicas together.
        learning_rate: Highest learning rate, reached after the warm-up.
        learning_rate_batch_size: Batch size that `learning_rate` is meant for: another
            batch size scales it linearly, as the authors do. `None`: no scaling.
        data_dir: Where tensorflow-datasets keeps its data; `None` for its default.
        train_split: As in `open_source`.
        validation_split: As in `open_source`.
        weights: Weights to start from, as in `CrossViT`.
        input_size: Side of the model's input, in pixels; `None` for the preset's.
        crop_ratio: Part of the resized picture's shorter side that the evaluation crop keeps;
            `None` for the published one of that input size.
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        weight_decay: Decay of kernels; biases, norms and tokens do not decay.
        warmup_epochs: Epochs in which the learning rate rises linearly from 0.
        final_learning_rate: Where the cosine ends; scaled as `learning_rate`.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        drop_path_rate: As in `CrossViT`.
        ema_momentum: Momentum of a moving average of the weights, in [0, 1), which is then
            what is validated and saved; `None` for no average.
        clip_norm: Highest norm of all gradients together, over the global batch; `None`
            clips nothing.
        accumulation_steps: Parts that each replica's batch is worked off in, one after the
            other, before the one update: less memory.
        gradient_checkpointing: As in `CrossViT`.
        lora_rank: Rank of LoRA on the attention projections: only these, the heads and the
            norms are trained, and the product is merged at the end. `None` trains all.
        augment: "reference" (rand-m9-mstd0.5-inc1 and batch-mode mixing, which made the
            published weights), "kerascv" (KerasCV's own layers) or "none".
        crop_area: Lowest and highest share of a picture's area in a random training crop.
        horizontal_flip: Whether half of the training pictures are mirrored.
        translation: Largest shift of a training picture, as a share of its sides, in [0, 1),
            by "kerascv".
        rotation: Largest rotation of a training picture either way, in degrees, from 0, by
            "kerascv"; what shift and rotation uncover is black.
        randaugment_magnitude: Strength of RandAugment, in [0, 10]; 0 for none.
        randaugment_num_ops: Operations of RandAugment per picture.
        randaugment_std: Deviation of the strength, by "reference".
        mixup_alpha: Parameter of MixUp; 0 for none.
        cutmix_alpha: Parameter of CutMix; 0 for none. With both, each has half of the batches.
        mixing_batch_size: Pictures that are mixed alike, with each other; divides
            `batch_size`. `None`: the whole batch.
        erasing_probability: Probability that a part of a picture is erased, in [0, 1).
        repeated_augmentation: Copies of a picture that follow each other, each augmented
            anew; an epoch keeps its number of steps.
        strategy: "none", "mirrored" (all GPUs of this machine), "multiworker" (machines named
            in `TF_CONFIG`, or by Slurm), "tpu", or "auto": what the environment speaks for.
        precision: Keras dtype policy of the model.
        jit_compile: Whether XLA compiles the training step; on a TPU it always does.
        seed: Seed of weights, data order and augmentation, from 0.
        checkpoint_steps: Steps between checkpoints; `None` for one an epoch.
        resume: Whether to go on from the last checkpoint in `output_dir`. `False` puts what
            is there aside.
        parallel_calls: Calls that prepare batches at the same time; `None` lets tf.data choose.

    Raises:
        ValueError: If a value is outside its range.
    """

    model: str
    dataset: str
    output_dir: str
    epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_batch_size: int | None = None
    data_dir: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    weights: str | None = None
    input_size: int | None = None
    crop_ratio: float | None = None
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    final_learning_rate: float = 0.0
    label_smoothing: float = 0.1
    drop_path_rate: float = 0.1
    ema_momentum: float | None = None
    clip_norm: float | None = None
    accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    lora_rank: int | None = None
    augment: str = "reference"
    crop_area: tuple = (0.08, 1.0)
    horizontal_flip: bool = True
    translation: float = 0.0
    rotation: float = 0.0
    randaugment_magnitude: float = 9.0
    randaugment_num_ops: int = 2
    randaugment_std: float = 0.5
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    mixing_batch_size: int | None = None
    erasing_probability: float = 0.25
    repeated_augmentation: int = 1
    strategy: str = "auto"
    precision: str = "float32"
    jit_compile: bool = False
    seed: int = 0
    checkpoint_steps: int | None = None
    resume: bool = True
    parallel_calls: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "crop_area", tuple(self.crop_area))
        self._check_counts()
        self._check_numbers()
        check_choice("optimizer", self.optimizer, {"adamw", "sgd"})
        check_choice("augment", self.augment, set(AUGMENTATIONS))
        check_choice("strategy", self.strategy, set(STRATEGIES))
        check_choice("precision", self.precision, set(PRECISIONS))
        for name in ("horizontal_flip", "gradient_checkpointing", "jit_compile", "resume"):
            check_choice(name, getattr(self, name), {True, False})

    def _check_counts(self):
        optional = (
            "learning_rate_batch_size",
            "input_size",
            "lora_rank",
            "mixing_batch_size",
            "checkpoint_steps",
            "parallel_calls",
        )
        for name in ("epochs", "batch_size", "accumulation_steps", "repeated_augmentation"):
            check_positive_int(name, getattr(self, name))
        for name in optional:
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"`seed` must be an integer from 0. Received: seed={self.seed!r}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"`warmup_epochs` must be at least 0 and less than epochs={self.epochs}. "
                f"Received: warmup_epochs={self.warmup_epochs}"
            )

    def _check_numbers(self):
        for name in ("label_smoothing", "drop_path_rate", "translation", "erasing_probability"):
            check_rate(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        if self.clip_norm is not None:
            check_positive("clip_norm", self.clip_norm)
        if self.ema_momentum is not None:
            check_rate("ema_momentum", self.ema_momentum)
        not_negative = (
            "weight_decay",
            "final_learning_rate",
            "rotation",
            "randaugment_magnitude",
            "randaugment_std",
            "mixup_alpha",
            "cutmix_alpha",
        )
        for name in not_negative:
            check_not_negative(name, getattr(self, name))
        if self.randaugment_magnitude > 10:
            raise ValueError(
                "`randaugment_magnitude` must be a number in [0, 10]. "
                f"Received: randaugment_magnitude={self.randaugment_magnitude!r}"
            )
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(
                "`crop_area` must be two shares with 0 < lowest <= highest <= 1. "
                f"Received: crop_area={self.crop_area}"
            )

    @property
    def scaled_learning_rates(self):
        """`learning_rate` and `final_learning_rate` for this batch size."""
        scale = self.batch_size / (self.learning_rate_batch_size or self.batch_size)
        return self.learning_rate * scale, self.final_learning_rate * scale

    def save(self, path):
        """Writes the values as JSON."""
        write_json(path, dataclasses.asdict(self))
