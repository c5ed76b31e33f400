"""Saving, loading in a process of its own, configs, export."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.training import make_optimizer
from tests import base

pytestmark = pytest.mark.slow

FORMS = {
    "top": {"classifier_activation": None},
    "tokens": {"include_top": False},
    "token": {"include_top": False, "pooling": "token"},
    "rates": {"drop_rate": 0.1, "drop_path_rate": 0.2, "gradient_checkpointing": True},
}

LOAD = """
import sys
import keras, numpy as np
import keras_crossvit
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
x = np.load(sys.argv[2])
np.savez(sys.argv[3], *keras.tree.flatten(model.predict(x, verbose=0)))
"""


def assert_same_outputs(ours, theirs, **kwargs):
    ours, theirs = keras.tree.flatten(ours), keras.tree.flatten(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **kwargs)


@pytest.mark.parametrize("form", FORMS)
def test_saved_model_loads_in_safe_mode_with_the_same_values(form, tmp_path):
    model = base.small_model(**FORMS[form])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    x = base.pixels()
    assert_same_outputs(loaded(x), model(x), rtol=0, atol=0)


def test_saved_model_loads_in_a_fresh_process(fresh_model, tmp_path):
    """With its optimizer, too, which nothing else there imports."""
    x, model = base.pixels(), fresh_model
    model.compile(make_optimizer(model, 1e-3, 0.05, total_steps=9, warmup_steps=3), "mse")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    base.run_python(LOAD, *(tmp_path / name for name in ("model.keras", "x.npy", "y.npz")))
    # Another process may share the work among its threads otherwise, and so round otherwise.
    assert_same_outputs(np.load(tmp_path / "y.npz")["arr_0"], model(x), rtol=0, atol=5e-6)


def test_weights_file_round_trip(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    other = base.small_model(classifier_activation=None)
    for variable in other.weights:
        variable.assign(keras.ops.zeros_like(variable))
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_outputs(other.weights, model.weights, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_config_round_trip(form):
    model = base.small_model(**FORMS[form])
    config = json.dumps(model.get_config())  # plain values only
    again = kc.CrossViT.from_config(json.loads(config))
    assert json.dumps(again.get_config()) == config
    again.set_weights(model.get_weights())
    x = base.pixels()
    assert_same_outputs(again(x), model(x), rtol=0, atol=0)


def test_clone(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = base.pixels()
    assert_same_outputs(clone(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        base.any_design("cross_attention", "linear"),
        dataclasses.replace(base.any_design("cross_attention", "conv"), fusion_depth=2),
        base.any_design("pairwise", "t2t"),
        base.any_design("class_token", "t2t_transformer"),
        base.any_design("all_attention", "linear"),
    ],
    ids=lambda config: f"{config.fusion}, {config.patch_embed}",
)
def test_tensorflows_checkpoints_hold_all_weights(config, tmp_path):
    model, other = (base.small_model(config) for _ in range(2))
    for variable in other.weights:
        variable.assign(variable + 1)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    for ours, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_export_and_reload(tmp_path):
    import tensorflow as tf

    model = base.small_model(base.small_config(num_stages=1), include_top=False)
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    for batch in (1, 3):  # the batch dimension is free
        x = base.pixels(batch)
        assert_same_outputs(served.serve(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_policy_is_saved_with_the_model(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = base.small_model(classifier_activation=None)
    keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("stage_0").dtype_policy.name == policy
    x = base.pixels()
    assert_same_outputs(loaded(x), model(x), rtol=0, atol=0)


def test_published_architecture_round_trip(tmp_path):
    model = kc.CrossViT9Dagger(weights=None, input_shape=(48, 96, 3), classes=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = base.pixels(1, 48, 96)
    assert_same_outputs(loaded(x), model(x), rtol=0, atol=0)
