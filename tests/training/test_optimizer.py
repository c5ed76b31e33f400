"""AdamW's schedule, and which variables decay."""

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.training import make_optimizer


@pytest.fixture(scope="module")
def model():
    return kc.CrossViT(kc.CrossViTConfig.preset("crossvit_digits"), weights=None, classes=10)


def test_rate_rises_linearly_then_falls_as_a_cosine(model):
    optimizer = make_optimizer(model, 0.4, 0.05, total_steps=30, warmup_steps=10)
    rate = [float(optimizer._learning_rate(step)) for step in range(31)]
    assert rate[:11] == pytest.approx([0.04 * step for step in range(11)], abs=1e-6)
    cosine = [0.2 * (1 + np.cos(np.pi * step / 20)) for step in range(21)]
    assert rate[10:] == pytest.approx(cosine, abs=1e-6)


def test_rate_without_warmup_begins_at_its_highest(model):
    optimizer = make_optimizer(model, 0.4, 0.05, total_steps=30, warmup_steps=0)
    assert float(optimizer._learning_rate(0)) == pytest.approx(0.4)


def test_only_kernels_decay(model):
    """With gradients of zero AdamW moves what decays, by rate x decay, and nothing else."""
    before = [v.numpy() for v in model.trainable_variables]
    optimizer = make_optimizer(model, 0.4, 0.05, total_steps=30, warmup_steps=0)
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    moved = 0
    for variable, value in zip(model.trainable_variables, before, strict=True):
        expected = value * (1 - 0.4 * 0.05) if variable.path.endswith("kernel") else value
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)
        moved += variable.path.endswith("kernel")
        variable.assign(value)
    assert moved == sum(v.ndim in (2, 4) for v in model.trainable_variables)


def test_it_comes_built(model):
    optimizer = make_optimizer(model, 0.1, 0.05, total_steps=3, warmup_steps=1)
    assert optimizer.built
    # Two moments for each variable, the step and the learning rate's own counter.
    assert len(optimizer.variables) >= 2 * len(model.trainable_variables)


def test_one_operation_for_each_variable_is_keras_adamw(model):
    """Three steps of gradients of any kind: the weights of Keras' own AdamW."""
    before = [v.numpy() for v in model.trainable_variables]
    draw = np.random.default_rng(0)
    gradients = [
        [draw.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        for _ in range(3)
    ]
    results = []
    for ours in (True, False):
        for variable, value in zip(model.trainable_variables, before, strict=True):
            variable.assign(value)
        optimizer = make_optimizer(model, 0.01, 0.1, total_steps=30, warmup_steps=10)
        if not ours:
            excluded = [v for v in model.trainable_variables if not v.path.endswith("kernel")]
            optimizer = keras.optimizers.AdamW(optimizer._learning_rate, weight_decay=0.1)
            optimizer.exclude_from_weight_decay(var_list=excluded)
            optimizer.build(model.trainable_variables)
        for step in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in step])
        results.append([v.numpy() for v in model.trainable_variables])
    for variable, value in zip(model.trainable_variables, before, strict=True):
        variable.assign(value)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_sgd_is_pytorchs():
    """Decay goes through the momentum: buffer = 0.9 buffer + gradient + decay x weight."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="fc")(inputs))
    kernel = model.get_layer("fc").kernel
    weight = kernel.numpy()
    optimizer = make_optimizer(model, 0.1, 0.5, 10**6, 0, optimizer="sgd")
    draw, buffer = np.random.default_rng(1), 0.0
    for _ in range(3):
        gradient = draw.normal(size=(3, 2)).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient), keras.ops.zeros((2,))])
        buffer = 0.9 * buffer + gradient + 0.5 * weight
        weight = weight - 0.1 * buffer
    np.testing.assert_allclose(kernel.numpy(), weight, atol=1e-5)
    np.testing.assert_array_equal(model.get_layer("fc").bias.numpy(), 0)
