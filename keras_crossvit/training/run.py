"""One training run, from a configuration to an exported model."""

import pathlib

import keras
import tensorflow as tf

from keras_crossvit.data.pipeline import evaluation_batches, training_batches
from keras_crossvit.data.sources import open_source
from keras_crossvit.export import export_saved_model
from keras_crossvit.models import CrossViT, CrossViTConfig
from keras_crossvit.training.curves import plot_curves
from keras_crossvit.training.optimizer import make_optimizer


def train(config):
    """Trains, evaluates and exports; the output folder then holds everything of the run.

    `config.json` (the values), `log.csv` and `tensorboard/` (the curves), `curves.png`,
    `model.keras` (the final weights and the graph) and `export/<version>/` (the SavedModel).

    Args:
        config: A `TrainConfig`.

    Returns:
        `{"model", "source", "history", "loss", "accuracy", "top5_accuracy", "export"}`; the
        loss and accuracies are of all held-out pictures, `export` is a folder.

    Raises:
        ValueError: If a value of `config` does not fit the data.
    """
    source = open_source(config.dataset, config.data_dir)
    if config.batch_size > source.train.size:
        raise ValueError(
            f"`batch_size` must be at most the {source.train.size} training pictures of "
            f"{source.name}. Received: batch_size={config.batch_size}"
        )
    output = pathlib.Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    config.save(output / "config.json")
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)

    with _strategy(config.strategy).scope():
        model = _compiled_model(config, source)
    size = model.input_shape[1:3]
    classes = len(source.class_names)
    held_out = evaluation_batches(
        source.validation, classes, size, config.batch_size, config.crop_ratio
    )
    history = model.fit(
        training_batches(source.train, classes, size, config),
        validation_data=held_out,
        epochs=config.epochs,
        shuffle=False,  # the batches are shuffled already; Keras warns otherwise
        callbacks=[
            keras.callbacks.CSVLogger(output / "log.csv"),
            keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            keras.callbacks.TerminateOnNaN(),
        ],
    ).history
    results = model.evaluate(held_out, return_dict=True, verbose=0)
    plot_curves(history, output / "curves.png")
    model.save(output / "model.keras")
    export = export_saved_model(
        model, output / "export", labels=source.class_names, crop_ratio=config.crop_ratio
    )
    return {**results, "model": model, "source": source, "history": history, "export": export}


def _strategy(name):
    """The tf.distribute strategy of a name."""
    if name == "mirrored" or (name == "auto" and len(tf.config.list_physical_devices("GPU")) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _compiled_model(config, source):
    """The model of a run, ready for `fit`."""
    architecture = CrossViTConfig.preset(config.model)
    side = config.input_size
    model = CrossViT(
        architecture,
        weights=config.weights,
        input_shape=None if side is None else (side, side, 3),
        classes=len(source.class_names),
        drop_path_rate=config.drop_path_rate,
    )
    steps = source.train.size // config.batch_size
    model.compile(
        optimizer=make_optimizer(
            model,
            config.learning_rate,
            config.weight_decay,
            total_steps=config.epochs * steps,
            warmup_steps=config.warmup_epochs * steps,
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=["accuracy", keras.metrics.TopKCategoricalAccuracy(5, name="top5_accuracy")],
    )
    return model
