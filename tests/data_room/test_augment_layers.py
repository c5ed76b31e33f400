"""The reference policy as KerasCV's layers, and where KerasCV cannot be imported."""

import inspect
import logging
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data import augment, training_batches
from keras_crossvit.data.augment import make_augmentation, reference
from tests.base import skip_without
from tests.data_room.test_augment import policy, random_images
from tests.data_room.test_pipeline import SIZE, textured

pytestmark = pytest.mark.slow


@pytest.fixture
def without_kerascv(monkeypatch):
    """KerasCV cannot be imported, and nothing has said so yet."""
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    monkeypatch.delitem(sys.modules, f"{augment.__name__}.kerascv_layers", raising=False)
    monkeypatch.delattr(augment, "kerascv_layers", raising=False)
    reference._say_without_layers.cache_clear()


@pytest.fixture(scope="module")
def layers():
    skip_without("keras_cv")
    from keras_crossvit.data.augment import kerascv_layers

    return kerascv_layers


@pytest.mark.parametrize("name", ["ReferenceRandAugment", "RandomErasing", "BatchMixing"])
def test_layers_are_kerascvs_and_keep_their_configuration(layers, name):
    import keras_cv

    layer = getattr(layers, name)
    made = layer()
    assert isinstance(made, keras_cv.layers.BaseImageAugmentationLayer)
    assert layer.from_config(made.get_config()).get_config() == made.get_config()
    assert inspect.signature(layer.__init__).parameters.keys() - {"self", "kwargs"} <= {
        *made.get_config()
    }


def test_layers_take_batches_too(layers):
    images, seeds = random_images(3), tf.constant([[1, 2], [3, 4], [5, 6]])
    layer = layers.ReferenceRandAugment()
    whole = layer({"images": tf.constant(images), "seed": seeds})["images"]
    for row in range(3):
        alone = layer.on_image(tf.constant(images[row]), seeds[row])
        np.testing.assert_array_equal(whole[row], alone)


def full_batches():
    config = policy(erasing_probability=0.9, mixing_batch_size=4, seed=3)
    return list(training_batches(textured(), 24, SIZE, config).take(3).as_numpy_iterator())


@pytest.fixture(scope="module")
def layers_batches(layers):
    return full_batches()


def test_same_batches_without_kerascv(layers_batches, without_kerascv, caplog):
    """Bit for bit, with one message in the log."""
    with caplog.at_level(logging.WARNING):
        without = full_batches()
        make_augmentation(policy(), 10)
    for (images, labels), (same, same_labels) in zip(layers_batches, without, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, same_labels)
    assert np.abs(layers_batches[0][0] - layers_batches[1][0]).max() > 1
    (record,) = caplog.records
    assert record.name == "keras_crossvit.data"
    assert record.getMessage().startswith("KerasCV cannot be imported (ModuleNotFoundError: ")


def test_the_layers_run_where_kerascv_is_there(monkeypatch, layers):
    called = []
    for name in ("ReferenceRandAugment", "RandomErasing", "BatchMixing"):
        layer = getattr(layers, name)
        monkeypatch.setattr(
            layer, "__call__", lambda self, inputs, name=name: called.append(name) or inputs
        )
    augmentation = make_augmentation(policy(), 10)
    augmentation.image(tf.constant(random_images()[0]), tf.constant([1, 2]))
    augmentation.batch(tf.zeros([8, 4, 4, 3]), tf.eye(8), tf.constant([[1, 2]]))
    assert called == ["ReferenceRandAugment", "RandomErasing", "BatchMixing"]


def test_kerascvs_own_without_kerascv(without_kerascv):
    message = r"such as \"reference\", where KerasCV cannot be imported \(pip install keras-cv\)"
    with pytest.raises(ValueError, match=message):
        make_augmentation(policy(augment="kerascv"), 10)
