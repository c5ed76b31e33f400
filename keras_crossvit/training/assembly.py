"""What a run is put together from: data, model, optimizer, step."""

import logging
from collections.abc import Mapping
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_crossvit.common.checks import breaks_a_line, check_choice
from keras_crossvit.data.augment import make_augmentation
from keras_crossvit.data.pipeline import labels_outside, steps_per_epoch
from keras_crossvit.data.sources import Source, open_source
from keras_crossvit.layers import FUSIONS, PATCH_EMBEDS
from keras_crossvit.models import CrossViT, CrossViTConfig, freeze
from keras_crossvit.models.config import PRESETS
from keras_crossvit.optimizer import learning_rate_schedule, make_optimizer
from keras_crossvit.training.config import TrainConfig
from keras_crossvit.training.lora import enable_attention_lora
from keras_crossvit.training.recipes import loaded_files
from keras_crossvit.training.steps import Step, step_class
from keras_crossvit.training.steps.losses import RowLoss, Teacher, balanced_weights
from keras_crossvit.training.strategy import replicas_of, scope_of, shard_of
from keras_crossvit.training.teachers import load_teacher

logger = logging.getLogger(__name__)


def open_data(config: TrainConfig) -> Source:
    """The `Source` of a run."""
    return open_source(
        config.dataset, config.data_dir, config.train_split, config.validation_split
    )


def check_fit(config: TrainConfig, source: Source, strategy: Any) -> None:
    """Raises `ValueError` if there is no such model, or data or devices do not fit a run of it.

    Args:
        config: A `TrainConfig`.
        source: The `Source` of its data.
        strategy: What `make_strategy` returned.
    """
    PRESETS.check("model", config.model)
    _check_exportable(config.model)
    if config.freeze_stages is not None:
        stages = CrossViTConfig.preset(config.model).num_stages
        check_choice("freeze_stages", config.freeze_stages, range(stages + 1))
    for label in source.class_names:
        if label.splitlines() != [label] or any(breaks_a_line(x) for x in label):
            raise ValueError(
                "`dataset` must have class names that can be written in one line of UTF-8, as the "
                f"SavedModel's labels are. Received: {source.name}, with the class {label!r}"
            )
    if len(source.class_names) == 1:
        raise ValueError(
            "`dataset` must have at least two classes to tell apart. "
            f"Received: {source.name}, with {source.class_names[0]!r} alone"
        )
    for name, split in (("train_split", source.train), ("validation_split", source.validation)):
        if split.size == 0:
            raise ValueError(
                f"`{name}` must hold images. Received: {name}={getattr(config, name)!r}, in which "
                f"{source.name} has none"
            )
    if source.train.label_shape and config.loss == "softmax":
        logger.warning(
            "images of several labels are trained as if one class excluded the others; "
            "loss=sigmoid makes each label a question of its own"
        )
    classes = len(source.class_names)
    if config.best == "val_top5_accuracy" and classes <= 5:
        raise ValueError(
            "`best` must be 'val_accuracy' or 'val_loss' with at most five classes. "
            f"Received: best={config.best!r} with {classes} classes"
        )
    if config.best == "val_mean_average_precision" and not source.train.label_shape:
        raise ValueError(
            "`best` must be another than 'val_mean_average_precision' for images of one label. "
            f"Received: best={config.best!r}"
        )
    if config.batch_size > source.train.size:
        raise ValueError(
            f"`batch_size` must be at most the {source.train.size} training images of "
            f"{source.name}. Received: batch_size={config.batch_size}"
        )
    shard_of(strategy).check(config.batch_size, config.mixing_batch_size or config.batch_size)
    rows, left = divmod(config.batch_size, replicas_of(strategy))
    if left:
        raise ValueError(
            f"`batch_size` must be a multiple of the {replicas_of(strategy)} replicas. "
            f"Received: batch_size={config.batch_size}"
        )
    if rows % config.accumulation_steps:
        raise ValueError(
            f"`accumulation_steps` must divide the {rows} rows of a replica. "
            f"Received: accumulation_steps={config.accumulation_steps}"
        )
    make_augmentation(config, classes)


def _check_exportable(name):
    """The process that exports runs this one's recipe files, and knows no parts but theirs."""
    if keras.backend.backend() == "tensorflow" or loaded_files():
        return
    design = CrossViTConfig.preset(name)
    for part in (FUSIONS[design.fusion], PATCH_EMBEDS[design.patch_embed]):
        if not part.__module__.startswith("keras_crossvit."):
            raise ValueError(
                "`model` must be made of parts that a recipe file registers (`--recipe PATH`), "
                "which the process that exports on TensorFlow runs, too. "
                f"Received: model={name!r} with {part.__name__} of {part.__module__}"
            )


def build_model(config: TrainConfig, source: Source, **arguments: Any) -> CrossViT:
    """The model of a run, before training.

    Args:
        config: A `TrainConfig`.
        source: The `Source` of its data.
        **arguments: Arguments of `CrossViT` that replace the configuration's.
    """
    side = config.input_size
    values = {
        "weights": config.weights,
        "reset_heads": config.reset_heads and config.weights is not None,
        "input_shape": None if side is None else (side, side, config.channels),
        "classes": len(source.class_names),
        "labels": source.class_names,
        "classifier_activation": config.loss,
        "drop_path_rate": config.drop_path_rate,
        "gradient_checkpointing": config.gradient_checkpointing,
        **arguments,
    }
    return CrossViT(CrossViTConfig.preset(config.model), **values)


def make_schedule(config: TrainConfig, source: Source) -> LearningRateSchedule:
    """The learning rate of a run, by step."""
    steps = steps_per_epoch(source.train, config)
    return learning_rate_schedule(
        *config.scaled_learning_rates,
        total_steps=config.epochs * steps,
        warmup_steps=round(config.warmup_epochs * steps),
    )


def make_step(
    config: TrainConfig, source: Source, strategy: Any, notes: Mapping[str, Any] | None = None
) -> Step:
    """The `Step` of a run, with its model and optimizer, before training.

    Args:
        config: A `TrainConfig`.
        source: The `Source` of its data.
        strategy: What `make_strategy` returned.
        notes: Those of the checkpoint that the step will go on from. The weights that the run
            began with, which may be gone by now, are then not read, unless they alone tell the
            size of the model.
    """
    start: dict[str, Any] = {}
    if notes is not None and "input_shape" in notes:
        start = {"weights": None, "input_shape": tuple(notes["input_shape"])}
    elif notes is not None and config.input_size is not None:
        start = {"weights": None}  # earlier versions noted no shape, which weights may decide
    steps = steps_per_epoch(source.train, config)
    highest, final = config.scaled_learning_rates
    with scope_of(strategy):
        model = build_model(config, source, classifier_activation=None, **start)
        if config.lora_rank is not None:
            enable_attention_lora(model, config.lora_rank)
        if config.freeze_stages is not None:
            freeze(model, config.freeze_stages)
        optimizer = make_optimizer(
            model,
            highest,
            config.weight_decay,
            total_steps=config.epochs * steps,
            warmup_steps=round(config.warmup_epochs * steps),
            optimizer=config.optimizer,
            final_learning_rate=final,
            clip_norm=config.clip_norm,
            ema_momentum=config.ema_momentum,
            layer_decay=config.layer_decay,
        )
        return step_class()(
            model,
            optimizer,
            strategy,
            accumulation_steps=config.accumulation_steps,
            steps_per_call=config.steps_per_call,
            jit_compile=config.jit_compile,
            loss=make_loss(config, source, model),
            several_labels=bool(source.train.label_shape),
        )


def make_loss(config: TrainConfig, source: Source, model: CrossViT) -> RowLoss:
    """The loss of a run, with the class weights and the teacher, if any.

    Args:
        config: A `TrainConfig`.
        source: The `Source` of its data.
        model: The model that is trained.

    Raises:
        ValueError: If the teacher does not fit the model, a class has no image, or a label that
            is to be weighted lies outside the classes.
    """
    weights = teacher = None
    classes = len(source.class_names)
    if config.class_weights is not None:
        labels = source.train.labels()
        if labels.ndim == 1 and not ((labels >= 0) & (labels < classes)).all():
            raise labels_outside(config.dataset)
        weights = balanced_weights(labels, classes, config.loss)
    if config.teacher is not None:
        teacher = Teacher(
            load_teacher(config.teacher, model.input_shape, source),
            config.distillation,
            config.distillation_alpha,
            config.distillation_temperature,
            model.input_shape[1:],
        )
    return RowLoss(config.loss, weights, teacher)
