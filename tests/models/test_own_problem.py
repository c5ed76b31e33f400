"""Published weights with other classes, other channels, and an image for each branch."""

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.models.preprocessing import as_model_takes
from tests import base

pytestmark = pytest.mark.slow

CONFIG = base.small_config()
GREY = base.pixels()[..., :1]


@pytest.fixture(scope="module")
def rgb():
    return base.small_model(classifier_activation=None)


@pytest.fixture(scope="module")
def weights(rgb, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "rgb.safetensors"
    kc.save_checkpoint(rgb, path)
    return path


def load(weights, **arguments):
    values = {"classes": 5, "classifier_activation": None, **arguments}
    return kc.CrossViT(CONFIG, weights=weights, **values)


def kernels(model):
    return [np.array(branch.patch_embed.weights[0]) for branch in model.branches.values()]


def test_one_channel_answers_as_three_equal_ones(rgb, weights):
    grey = load(weights, input_shape=(40, 40, 1))
    wanted = rgb.predict_on_batch(np.repeat(GREY, 3, axis=-1))
    np.testing.assert_allclose(grey.predict_on_batch(GREY), wanted, atol=1e-6)


def test_one_channel_of_its_own_mean_has_the_sum_of_the_kernels(rgb, weights):
    grey = load(weights, input_shape=(40, 40, 1), mean=0.5, std=[0.25])
    for ours, theirs in zip(kernels(grey), kernels(rgb), strict=True):
        np.testing.assert_allclose(ours, theirs.sum(axis=2, keepdims=True), atol=1e-6)
    plain = load(weights, input_shape=(40, 40, 1), include_preprocessing=False)
    wanted = plain.predict_on_batch((GREY / 255 - 0.5) / 0.25)
    np.testing.assert_allclose(grey.predict_on_batch(GREY), wanted, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 5, 6])
def test_other_channels_repeat_the_kernels_as_in_timm(channels, rgb, weights):
    model = load(weights, input_shape=(40, 40, channels))
    assert len(model.mean) == channels
    np.testing.assert_array_equal(model.mean, [rgb.mean[n % 3] for n in range(channels)])
    for ours, theirs in zip(kernels(model), kernels(rgb), strict=True):
        wanted = theirs[:, :, [n % 3 for n in range(channels)]] * (3 / channels)
        np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"mean": 0.4, "std": 0.2}])
def test_channels_survive_saving(arguments, weights, tmp_path):
    model = load(weights, input_shape=(40, 40, 1), **arguments)
    model.save(tmp_path / "x.keras")
    again = keras.saving.load_model(tmp_path / "x.keras")
    assert (again.mean, again.std) == (model.mean, model.std)
    np.testing.assert_array_equal(again.predict_on_batch(GREY), model.predict_on_batch(GREY))


def test_new_heads_whatever_the_classes(rgb, weights):
    with pytest.raises(ValueError, match="`classes` must be 5, as in the weights, unless reset_h"):
        load(weights, classes=7)
    for classes in (7, 5):
        model = load(weights, classes=classes, reset_heads=True)
        assert model.output_shape == (None, classes)
        for ours, theirs in zip(model.weights, rgb.weights, strict=True):
            if "_head/" in ours.path:
                assert ours.shape[-1] == classes
                assert np.abs(ours).max() < 0.1 < np.abs(theirs).max()
            else:
                np.testing.assert_array_equal(ours, theirs)


def test_heads_of_weights_without_names_stay(rgb, tmp_path):
    rgb.save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(ValueError, match="`reset_heads` must be false for a"):
        load(tmp_path / "x.weights.h5", reset_heads=True)


def test_one_class_is_a_sigmoid():
    model = base.small_model(classes=1)
    logits = model.logits
    logits, probabilities = keras.Model(model.input, [logits, model.output])(base.pixels())
    assert np.ptp(probabilities) > 0.01
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-np.array(logits))), rtol=1e-5)


class TestSeparateInputs:
    @pytest.fixture(scope="class")
    @staticmethod
    def two(weights):
        return load(weights, inputs="separate")

    def test_the_same_image_twice_is_the_shared_model(self, two, rgb):
        images = base.pixels()
        np.testing.assert_allclose(
            two.predict_on_batch([images, images]), rgb.predict_on_batch(images), atol=1e-6
        )

    def test_each_branch_sees_its_own(self, two, rgb):
        first, second = base.pixels(seed=1), base.pixels(seed=2)
        tokens = [layers.patch_embed.output for layers in two.branches.values()]
        ours = keras.Model(two.inputs, tokens)([first, second])
        shared = keras.Model(rgb.input, [x.patch_embed.output for x in rgb.branches.values()])
        np.testing.assert_allclose(ours[0], shared(first)[0], atol=1e-6)
        np.testing.assert_allclose(ours[1], shared(second)[1], atol=1e-6)

    def test_pixels_are_normalised_for_a_model_that_does_not(self, two, weights):
        outside = load(weights, inputs="separate", include_preprocessing=False)
        pair = base.pixels(seed=1), base.pixels(seed=2)
        prepared = [as_model_takes(outside, images) for images in pair]
        np.testing.assert_allclose(
            outside.predict_on_batch(prepared), two.predict_on_batch(pair), atol=1e-4
        )

    def test_it_trains_and_survives_saving(self, weights, tmp_path):
        model = load(weights, inputs="separate")
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        pair = [base.pixels(4, seed=1), base.pixels(4, seed=2)]
        before = base.values_of(model)
        losses = model.fit(pair, np.arange(4), epochs=2, verbose=0).history["loss"]
        assert losses[1] < losses[0]
        assert any(np.abs(a - b).max() > 0 for a, b in zip(before, model.weights, strict=True))
        model.save(tmp_path / "two.keras")
        again = keras.saving.load_model(tmp_path / "two.keras")
        np.testing.assert_array_equal(again.predict_on_batch(pair), model.predict_on_batch(pair))


def trained(model):
    """The first part of the path of each variable that is trained."""
    return {variable.path.partition("/")[0] for variable in model.trainable_variables}


EMBEDDINGS = {"patch_embed", "class_token", "position_embedding"}
LATER = {f"{branch}_{part}" for branch in ("small", "large") for part in ("norm", "head")}


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        (0, LATER | {"stage_0", "stage_1"}),
        (1, LATER | {"stage_1"}),
        (2, LATER),
        (None, {"small_head", "large_head"}),
    ],
)
def test_frozen_layers_stay_frozen(stages, wanted, tmp_path):
    model = base.small_model()
    kc.freeze(model, stages=stages)
    assert trained(model) == wanted
    assert trained(kc.CrossViT.from_config(model.get_config())) == wanted
    model.save(tmp_path / "frozen.keras")
    again = keras.saving.load_model(tmp_path / "frozen.keras")
    assert trained(again) == wanted
    again.compile("sgd", "sparse_categorical_crossentropy")
    again.fit(base.pixels(4), np.arange(4), verbose=0)
    changed = {
        ours.path.partition("/")[0]
        for ours, before in zip(again.weights, model.weights, strict=True)
        if np.abs(ours - before).max() > 0
    }
    assert changed == wanted


def test_fewer_stages_thaw_the_rest():
    model = base.small_model()
    model.trainable = False
    for stages, wanted in (
        (None, {"small_head", "large_head"}),
        (1, LATER | {"stage_1"}),
        (0, LATER | {"stage_0", "stage_1"}),
        (2, LATER),
    ):
        kc.freeze(model, stages)
        assert trained(model) == wanted


def test_a_part_of_a_layer_that_is_frozen_by_hand_stays_so():
    model = base.small_model()
    model.stages[1].fuse.trainable = False
    kc.freeze(model, stages=0)
    assert model.stages[1].trainable_variables
    assert not model.stages[1].fuse.trainable_variables
