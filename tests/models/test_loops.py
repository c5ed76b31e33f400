"""`fit`, `evaluate` and `predict` of the models give what Keras' own give, and do not wait."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.models import loops
from tests import base


@pytest.fixture(scope="module")
def models():
    """A CrossViT, and the same layers in Keras' own class."""
    model = base.small_model()
    pair = model, keras.Model(model.input, model.output)
    for one in pair:
        # Eagerly: nothing here depends on the graphs, which take long to build.
        one.compile(
            "sgd",
            "sparse_categorical_crossentropy",
            weighted_metrics=["accuracy"],
            run_eagerly=True,
        )
    return pair


def arrays():
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (13, 40, 40, 3)), np.arange(13) % 5, random.uniform(size=13)


@pytest.mark.parametrize(("batch_size", "kind"), [(None, np.asarray), (4, tf.constant)])
def test_arrays_give_what_keras_gives(models, batch_size, kind):
    ours, keras_own = models
    images, labels, weights = map(kind, arrays())
    np.testing.assert_array_equal(
        ours.predict(images, batch_size, verbose=0), keras_own.predict(images, batch_size, 0)
    )
    assert ours.predict(images, 4, 0, 2).shape == (8, 5)  # verbose and steps, by position
    assert ours.evaluate(images, labels, batch_size, 0) == keras_own.evaluate(
        images, labels, batch_size, 0
    )
    given = {"batch_size": batch_size, "verbose": 0, "return_dict": True}
    found = ours.evaluate(images, labels, sample_weight=weights, **given)
    assert found == keras_own.evaluate(images, labels, sample_weight=weights, **given)
    assert found["loss"] != ours.evaluate(images, labels, **given)["loss"]


@pytest.fixture
def calls(models, monkeypatch):
    """The arguments that Keras' own methods are called with; they do nothing here."""
    calls = []
    for name in ("fit", "evaluate", "predict"):
        monkeypatch.setattr(
            models[1].__class__, name, lambda self, **given: calls.append(given), raising=True
        )
    return calls


def tuned(dataset):
    return dataset.options().autotune.enabled


def test_arrays_are_fed_without_tuning(models, calls):
    ours, _ = models
    images, labels, weights = arrays()
    held_out = images[:7], labels[:7]
    ours.predict(images, 4)
    ours.evaluate(images, labels, 4)
    ours.fit(images, labels, 4, 2, validation_data=held_out, sample_weight=weights)
    ours.fit(images, labels, 4, validation_data=held_out, validation_batch_size=3)
    assert [tuned(call["x"]) for call in calls] == [False] * 4
    assert [len(call["x"]) for call in calls] == [4] * 4
    assert [len(call["x"].element_spec) for call in calls[1:]] == [2, 3, 2]
    assert [tuned(call["validation_data"]) for call in calls[2:]] == [False, False]
    assert [len(call["validation_data"]) for call in calls[2:]] == [2, 3]
    assert (calls[2]["epochs"], calls[2]["shuffle"]) == (2, False)


def test_datasets_are_not_tuned_unless_they_say_so(models, calls):
    ours, _ = models
    batches = tf.data.Dataset.from_tensor_slices(arrays()).batch(4)
    ours.predict(batches)
    ours.evaluate(batches)
    ours.fit(batches, validation_data=batches)
    ours.fit(batches, class_weight=dict.fromkeys(range(5), 2.0))
    assert [tuned(call["x"]) for call in calls] == [False] * 4
    assert not tuned(calls[2]["validation_data"])
    options = tf.data.Options()
    options.autotune.enabled = True
    own = batches.with_options(options)
    ours.fit(own, validation_data=own)
    assert calls[4]["x"] is own
    assert calls[4]["validation_data"] is own
    assert [call["shuffle"] for call in calls[2:]] == [False] * 3  # Keras warns about True


def test_rows_come_in_a_new_order_in_each_epoch(models, calls):
    ours, _ = models
    images, labels = np.zeros((40, 1)), np.arange(40)
    ours.fit(images, labels, 16)
    ours.fit(images, labels, 16, shuffle=False)
    orders = [
        np.concatenate([batch.numpy() for _, batch in call["x"]]) for call in (*calls, calls[0])
    ]
    np.testing.assert_array_equal(orders[1], labels)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), labels)
    assert len({tuple(order) for order in orders}) == 3
    assert min(order[:16].max() for order in (orders[0], orders[2])) > 30  # from all over


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"validation_split": 0.3},
        {"class_weight": {1: 3.0}},
        {"steps_per_epoch": 3, "batch_size": None},
    ],
)
def test_training_on_arrays_is_that_of_keras(models, changes):
    images, labels, weights = arrays()
    start = [variable.numpy() for variable in models[0].weights]
    losses = []
    for model in models:
        for variable, value in zip(model.weights, start, strict=True):
            variable.assign(value)
        given = {} if "class_weight" in changes else {"sample_weight": weights}
        given |= {"epochs": 1, "batch_size": 8, "shuffle": False, "verbose": 0, **changes}
        losses.append(model.fit(images, labels, **given).history)
    assert losses[0] == losses[1]
    assert ("val_loss" in losses[0]) == ("validation_split" in changes)


def test_floats_are_cast_as_by_keras(models, calls):
    images, labels, _ = arrays()
    assert images.dtype == "float64"
    models[0].fit(images, np.eye(5)[labels], validation_data=(tf.constant(images), labels))
    assert [spec.dtype for spec in calls[0]["x"].element_spec] == [tf.float32, tf.float32]
    specs = calls[0]["validation_data"].element_spec
    assert [spec.dtype for spec in specs] == [tf.float32, tf.int64]


def test_what_keras_alone_understands_comes_to_it_as_it_was(models, calls):
    ours, _ = models
    images, labels, _ = arrays()
    ours.predict(images, steps=2)  # in batches of 7
    ours.evaluate([images], labels)
    ours.fit(
        images, labels, steps_per_epoch=2, validation_data=(images, labels), validation_steps=2
    )
    ours.fit(images[:0], labels[:0], validation_data=())
    ours.fit(images, labels.astype(str))
    ours.fit(images, labels, validation_split=0.99)  # too much: Keras says so
    assert all(isinstance(call["x"], np.ndarray | list) for call in calls)
    assert isinstance(calls[2]["validation_data"], tuple)
    assert calls[3]["validation_data"] == ()
    with pytest.raises(TypeError, match=r"^CrossViT.fit\(\): got an unexpected .* 'epoch'$"):
        ours.fit(images, labels, epoch=3)


def test_images_in_the_unit_range_are_warned_of(models, calls, monkeypatch):
    seen = []
    monkeypatch.setattr(loops, "warn_of_unit_range", seen.append)
    images, labels, _ = arrays()
    models[0].fit(images, labels, validation_split=0.3)
    models[0].fit(images, labels, class_weight={0: 2.0})
    assert all(array is images for array in seen)
    assert len(seen) == 2


def test_everything_else_is_left_to_keras(models):
    ours, keras_own = models
    images, labels, _ = arrays()
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(13)
    np.testing.assert_array_equal(ours.predict(batches, verbose=0), ours.predict(images, 13, 0))
    assert ours.evaluate(batches, verbose=0) == keras_own.evaluate(batches, verbose=0)
    with pytest.raises(ValueError, match="cardinality"):
        ours.evaluate(images, labels[:3], verbose=0)
    history = ours.fit(images, labels, validation_data=(images, labels), verbose=0)
    found = ours.evaluate(images, labels, verbose=0, return_dict=True)
    assert history.history["val_loss"] == [pytest.approx(found["loss"])]


@pytest.fixture
def traced(monkeypatch):
    """The names of the steps that are traced."""
    names = []

    def noting(name):
        step = getattr(keras.Model, name)
        return lambda self, data: (names.append(name), step(self, data))[1]

    for name in ("train_step", "test_step"):
        monkeypatch.setattr(kc.CrossViT, name, noting(name))
    return names


@pytest.fixture
def compiled_model():
    """A model whose metrics and optimizer have no variables yet."""
    model = base.small_model(base.small_config(num_stages=1))
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
    return model


@pytest.mark.slow
def test_training_is_traced_once(compiled_model, traced):
    images, labels, _ = arrays()
    history = compiled_model.fit(images, labels, 13, verbose=0).history
    assert traced == ["train_step"]
    assert set(history) == {"loss", "accuracy", "sparse_top_k_categorical_accuracy"}
    assert int(compiled_model.optimizer.iterations) == 1


@pytest.mark.slow
def test_evaluation_is_traced_once(compiled_model, traced):
    images, labels, _ = arrays()
    found = compiled_model.evaluate(images, labels, 13, verbose=0, return_dict=True)
    assert traced == ["test_step"]
    right = compiled_model.predict(images, 13, verbose=0).argmax(-1) == labels
    assert found["accuracy"] == pytest.approx(right.mean())


@pytest.mark.slow
def test_models_of_a_strategy_are_trained_outside_of_its_scope():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = base.small_model(base.small_config(num_stages=1))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels, _ = arrays()
    assert set(model.fit(images, labels, 13, verbose=0).history) == {"loss", "accuracy"}
    assert int(model.optimizer.iterations) == 1


def test_metrics_that_compute_outside_of_graphs():
    """With `run_eagerly` a metric may use numpy, as scikit-learn's do."""
    model = base.small_model()
    model.compile(
        "sgd",
        "sparse_categorical_crossentropy",
        metrics=[lambda truth, answer: tf.constant(np.mean(truth.numpy()), "float32")],
        run_eagerly=True,
    )
    images, labels, _ = arrays()
    found = model.fit(images[:4], labels[:4], batch_size=4, verbose=0).history
    assert [value for name, value in found.items() if name != "loss"] == [[np.mean(labels[:4])]]


class SparseStep(kc.CrossViT):
    """A step that trains on other labels than the data's, as a user may write it."""

    def train_step(self, data):
        images, one_hot = data
        labels = tf.argmax(one_hot, -1)
        answers = self(images, training=False)
        self.compute_loss(images, labels, answers)
        return self.compute_metrics(images, labels, answers, None)


class NamedMetrics(kc.CrossViT):
    """The signature that Keras documents, without defaults."""

    def compute_metrics(self, x, y, y_pred, sample_weight):
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**found, "one": tf.constant(1.0)}


def one_stage(cls=kc.CrossViT):
    model = cls(base.small_config(num_stages=1), weights=None, classes=5)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.slow
def test_a_subclass_decides_what_its_steps_measure():
    images, labels, _ = arrays()
    model = one_stage(SparseStep)
    data = tf.data.Dataset.from_tensor_slices((images, np.eye(5)[labels])).batch(13)
    history = model.fit(data, verbose=0).history
    right = model.predict(images, 13, verbose=0).argmax(-1) == labels
    assert history["accuracy"] == [pytest.approx(right.mean())]
    found = one_stage(NamedMetrics).evaluate(images, labels, 13, verbose=0, return_dict=True)
    assert set(found) == {"loss", "accuracy", "one"}


def test_images_that_are_in_no_batch_are_refused_as_by_keras():
    images, labels, _ = arrays()
    with pytest.raises(ValueError, match=r"expected shape=\(None, 40, 40, 3\), found shape=\(40"):
        one_stage().fit(tf.data.Dataset.from_tensor_slices((images, labels)), verbose=0)


def test_a_share_of_arrays_of_unlike_lengths_is_not_held_out():
    images, labels, _ = arrays()
    with pytest.raises(ValueError, match=r"`y` must have a row for each of the 13 .* 11 rows"):
        one_stage().fit(images, labels[:11], validation_split=0.25, verbose=0)
