"""`predict` and `evaluate` of the models give what Keras' own give, and do not wait."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import base


@pytest.fixture(scope="module")
def models():
    """A CrossViT, and the same layers in Keras' own class."""
    model = base.small_model()
    pair = model, keras.Model(model.input, model.output)
    for one in pair:
        # Eagerly: nothing here hangs on the graphs, which take long to make.
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


def test_arrays_are_fed_without_tuning(models, monkeypatch):
    fed = []
    ours, keras_own = models
    images, labels, _ = arrays()
    for name in ("predict", "evaluate"):
        monkeypatch.setattr(keras_own.__class__, name, lambda self, x, *_, **__: fed.append(x))
    ours.predict(images, 4)
    ours.evaluate(images, labels, 4)
    assert [batches.options().autotune.enabled for batches in fed] == [False, False]
    assert [len(batches) for batches in fed] == [4, 4]


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
