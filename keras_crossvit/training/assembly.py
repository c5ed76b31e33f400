"""What a run is put together from: data, model, optimizer."""

import keras

from keras_crossvit.data.pipeline import steps_per_epoch
from keras_crossvit.data.sources import open_source
from keras_crossvit.models import CrossViT, CrossViTConfig
from keras_crossvit.training.lora import enable_attention_lora
from keras_crossvit.training.optimizer import learning_rate_schedule, make_optimizer
from keras_crossvit.training.trainee import Trainee


def open_data(config):
    """The `Source` of a run."""
    return open_source(
        config.dataset, config.data_dir, config.train_split, config.validation_split
    )


def check_fit(config, source, shard):
    """Raises `ValueError` if a run's batches do not fit the data or the devices."""
    if config.batch_size > source.train.size:
        raise ValueError(
            f"`batch_size` must be at most the {source.train.size} training pictures of "
            f"{source.name}. Received: batch_size={config.batch_size}"
        )
    shard.check(config.batch_size, config.mixing_batch_size or config.batch_size)
    per_replica = config.batch_size // (shard.workers * shard.replicas)
    if per_replica % config.accumulation_steps:
        raise ValueError(
            f"`accumulation_steps` must divide the {per_replica} rows of a replica. "
            f"Received: accumulation_steps={config.accumulation_steps}"
        )


def build_model(config, source, **arguments):
    """The model of a run, before training.

    Args:
        config: A `TrainConfig`.
        source: The `Source` of its data.
        **arguments: Arguments of `CrossViT` in the place of the configuration's.
    """
    side = config.input_size
    values = {
        "weights": config.weights,
        "input_shape": None if side is None else (side, side, 3),
        "classes": len(source.class_names),
        "drop_path_rate": config.drop_path_rate,
        "gradient_checkpointing": config.gradient_checkpointing,
        **arguments,
    }
    return CrossViT(CrossViTConfig.preset(config.model), **values)


def make_schedule(config, source):
    """The function from a step of a run to its learning rate."""
    steps = steps_per_epoch(source.train, config)
    return learning_rate_schedule(
        *config.scaled_learning_rates,
        total_steps=config.epochs * steps,
        warmup_steps=config.warmup_epochs * steps,
    )


def make_trainee(config, source, metrics=()):
    """What is trained, with its optimizer and loss, and the model that it shares weights with.

    Args:
        config: A `TrainConfig`.
        source: The `Source` of its data.
        metrics: Keras metrics.
    """
    model = build_model(config, source, classifier_activation=None)
    if config.lora_rank is not None:
        enable_attention_lora(model, config.lora_rank)
    steps = steps_per_epoch(source.train, config)
    highest, final = config.scaled_learning_rates
    optimizer = make_optimizer(
        model,
        highest,
        config.weight_decay,
        total_steps=config.epochs * steps,
        warmup_steps=config.warmup_epochs * steps,
        optimizer=config.optimizer,
        final_learning_rate=final,
        clip_norm=config.clip_norm,
        ema_momentum=config.ema_momentum,
    )
    trainee = Trainee(model, config.accumulation_steps)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    trainee.compile(optimizer, loss, weighted_metrics=[*metrics], jit_compile=config.jit_compile)
    return trainee, model
