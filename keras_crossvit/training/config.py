"""The values of a training run."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from keras_crossvit.common.checks import (
    check_between,
    check_bool,
    check_choice,
    check_not_negative,
    check_not_negative_int,
    check_positive_int,
    check_rate,
    check_up_to,
)
from keras_crossvit.common.files import write_json
from keras_crossvit.data.config import InputConfig
from keras_crossvit.optimizer import check_values
from keras_crossvit.training.best import METRICS

STRATEGIES = ("auto", "none", "mirrored", "multiworker", "tpu", "data_parallel")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(InputConfig):
    """Everything that determines a run; a recipe is one of these.

    It has the arguments of `InputConfig`, which determine the batches, and its own. Defaults are
    those of the paper's main results (section 4.1, table 9), where it gives them; `epochs` has
    none here.

    Args:
        model: Name of a preset.
        dataset: As in `open_source`.
        output_dir: Where the run writes, and finds its checkpoints when it is restarted.
        learning_rate: Highest learning rate, reached after the warm-up.
        learning_rate_batch_size: Batch size that `learning_rate` is meant for: another
            batch size scales it linearly, as the authors do. `None`: no scaling.
        data_dir: Where tensorflow-datasets keeps its data; `None` for its default.
        train_split: As in `open_source`.
        validation_split: As in `open_source`.
        weights: Weights to start from, as in `CrossViT`.
        reset_heads: As in `CrossViT`.
        freeze_stages: Number of stages to freeze, along with the embeddings before them: `stages`
            of `freeze`; `None` trains all.
        input_size: Side of the model's input, in pixels; `None` for the preset's.
        channels: 3, or 1 to train on images converted to grey, which needs an `input_size`.
        crop_ratio: Part of the resized image's shorter side that the evaluation crop keeps;
            `None` for the one published for that input size.
        loss: "softmax": one class out of all. "sigmoid": each class a question of its own, for
            images with several labels, or for one label as in DeiT III.
        class_weights: "balanced": rare classes count more, as `balanced_weights` says; `None`
            for weights of 1.
        teacher: A model to learn from alongside the labels, of the same classes and images: the
            name of a preset, with its published weights, or a `.keras` file of any Keras model.
            `None` for none. Only with the softmax.
        distillation: "soft" or "hard", as in `Teacher`.
        distillation_alpha: The teacher's share of the loss, in [0, 1].
        distillation_temperature: As in `Teacher`, at most 100.
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        weight_decay: Decay of kernels; biases, norms and tokens do not decay.
        layer_decay: As in `make_optimizer`.
        warmup_epochs: Epochs over which the learning rate rises linearly from 0; may be
            fractional, such as 0.5.
        final_learning_rate: Where the cosine ends; scaled like `learning_rate`.
        drop_path_rate: As in `CrossViT`.
        ema_momentum: Momentum of a moving average of the weights, in [0, 1); the average is then
            what is validated and saved. `None` for no average.
        clip_norm: Maximum norm of all gradients together, over the global batch; `None`
            clips nothing.
        accumulation_steps: Micro-batches that each replica's batch is split into, computed
            one after another before the single update, to save memory.
        gradient_checkpointing: As in `CrossViT`.
        lora_rank: Rank of LoRA on the attention projections: only these, the heads and the
            norms are trained, and the product is merged at the end. `None` trains all.
        strategy: "none", "mirrored" (all GPUs of this machine), "multiworker" (machines named
            in `TF_CONFIG`, or by Slurm), "tpu"; on JAX "none" or "data_parallel" (all devices,
            of several processes too); or "auto": what the environment suggests.
        precision: Keras dtype policy of the model.
        jit_compile: Whether XLA compiles TensorFlow's training step; on a TPU, and on JAX, it
            always does.
        steps_per_call: Steps that are started together, with no check in between: on GPUs and
            TPUs the devices then need not wait for Python.
        checkpoint_steps: Steps between checkpoints; `None` for one per epoch.
        worker_timeout: Seconds to wait for the run's other processes before giving up.
        max_restarts: How many times a run of several workers restarts itself after losing one.
        best: Metric that decides the best epoch, whose weights are kept in `best.keras` besides
            the last: "val_accuracy", "val_loss", "val_top5_accuracy" or, for images with several
            labels, "val_mean_average_precision"; `None` keeps none.
        patience: Epochs without a better one (by `best`, or by the loss) after which the run ends
            early; `None` for never.
        resume: Whether to go on from the last checkpoint in `output_dir`. `False` moves what
            is there aside.

    Raises:
        ValueError: If a value is outside its range.
    """

    model: str
    dataset: str
    output_dir: str
    epochs: int = dataclasses.field()  # no default, unlike InputConfig's
    learning_rate: float
    learning_rate_batch_size: int | None = None
    data_dir: str | None = None
    train_split: str = "train"
    validation_split: str | float | None = None
    weights: str | None = None
    reset_heads: bool = False
    freeze_stages: int | None = None
    input_size: int | None = None
    channels: int = 3
    crop_ratio: float | None = None
    loss: str = "softmax"
    class_weights: str | None = None
    teacher: str | None = None
    distillation: str = "soft"
    distillation_alpha: float = 0.5
    distillation_temperature: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    layer_decay: float | None = None
    warmup_epochs: float = 5
    final_learning_rate: float = 0.0
    drop_path_rate: float = 0.1
    ema_momentum: float | None = None
    clip_norm: float | None = None
    accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    lora_rank: int | None = None
    strategy: str = "auto"
    precision: str = "float32"
    jit_compile: bool = False
    steps_per_call: int = 1
    checkpoint_steps: int | None = None
    worker_timeout: int = 1800
    max_restarts: int = 10
    best: str | None = None
    patience: int | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_texts()
        self._check_counts()
        self._check_numbers()
        self._check_loss()
        if self.best is not None:
            check_choice("best", self.best, set(METRICS))
        check_choice("channels", self.channels, {1, 3})
        if self.channels != 3 and self.input_size is None:
            raise ValueError(
                "`input_size` must be given with channels=1. Received: input_size=None"
            )
        check_choice("strategy", self.strategy, set(STRATEGIES))
        check_choice("precision", self.precision, set(PRECISIONS))
        for name in ("gradient_checkpointing", "jit_compile", "reset_heads", "resume"):
            check_bool(name, getattr(self, name))

    def _check_texts(self) -> None:
        required = ("model", "dataset", "output_dir", "train_split")
        optional = ("data_dir", "weights", "teacher")
        for name in (*required, *optional):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):  # which JSON does not know
                value = os.fspath(value)
            if name == "train_split" and type(value) is int:  # a split called 2024, from JSON
                value = str(value)
            if name == "output_dir" and isinstance(value, str):
                value = os.path.expanduser(value)
            object.__setattr__(self, name, value)
            if not isinstance(value, str) and not (value is None and name in optional):
                raise ValueError(f"`{name}` must be a string. Received: {name}={value!r}")

    def _check_loss(self) -> None:
        check_choice("loss", self.loss, {"softmax", "sigmoid"})
        check_choice("distillation", self.distillation, {"soft", "hard"})
        check_between("distillation_alpha", self.distillation_alpha, 0, 1)
        # Beyond, float32 leaves few digits of the loss.
        check_up_to("distillation_temperature", self.distillation_temperature, 100)
        if self.class_weights is not None:
            check_choice("class_weights", self.class_weights, {"balanced"})
        if self.teacher is not None and self.loss != "softmax":
            raise ValueError(
                "`loss` must be 'softmax' with a `teacher`. "
                f"Received: loss={self.loss!r}, teacher={self.teacher!r}"
            )

    def _check_counts(self) -> None:
        for name in ("accumulation_steps", "steps_per_call", "worker_timeout"):
            check_positive_int(name, getattr(self, name))
        optional = ("learning_rate_batch_size", "input_size", "lora_rank", "checkpoint_steps")
        for name in (*optional, "patience"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        check_not_negative("warmup_epochs", self.warmup_epochs)
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"`warmup_epochs` must be at least 0 and less than epochs={self.epochs}. "
                f"Received: warmup_epochs={self.warmup_epochs}"
            )

    def _check_numbers(self) -> None:
        check_rate("drop_path_rate", self.drop_path_rate)
        if self.crop_ratio is not None:
            check_up_to("crop_ratio", self.crop_ratio)
        if self.freeze_stages is not None:
            check_not_negative_int("freeze_stages", self.freeze_stages)
            if self.lora_rank is not None:
                raise ValueError(
                    "`freeze_stages` must be None with a `lora_rank`, which freezes by itself. "
                    f"Received: freeze_stages={self.freeze_stages}"
                )
        check_values(
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            final_learning_rate=self.final_learning_rate,
            clip_norm=self.clip_norm,
            ema_momentum=self.ema_momentum,
            layer_decay=self.layer_decay,
        )
        check_not_negative_int("max_restarts", self.max_restarts)

    @property
    def scaled_learning_rates(self) -> tuple[float, float]:
        """`learning_rate` and `final_learning_rate` for this batch size."""
        scale = self.batch_size / (self.learning_rate_batch_size or self.batch_size)
        return self.learning_rate * scale, self.final_learning_rate * scale

    def save(self, path: str | os.PathLike, others: Mapping[str, Any] | None = None) -> None:
        """Writes the values as JSON, and `others` that the file is to hold."""
        write_json(path, {**(others or {}), **dataclasses.asdict(self)})
