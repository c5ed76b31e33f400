"""The training and the test step: accumulation, masked rows, XLA, LoRA, the average."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.training.lora import copy_weights, enable_attention_lora
from keras_crossvit.training.memory import activation_bytes, variable_bytes
from keras_crossvit.training.optimizer import make_optimizer
from keras_crossvit.training.state import WeightAverage, capture_state, restore_state
from keras_crossvit.training.trainee import Trainee
from tests.base import pixels, small_model, values_of

LABELS = np.eye(5, dtype="float32")[[0, 1, 2, 3, 4, 0, 1, 2]]
IMAGES = pixels(8)


def trainee(
    accumulation_steps=1, jit_compile=False, eager=False, lora_rank=None, model=None, **options
):
    model = small_model(classifier_activation=None) if model is None else model
    if lora_rank:
        enable_attention_lora(model, lora_rank)
    result = Trainee(model, accumulation_steps)
    optimizer = make_optimizer(model, 1e-3, 0.05, total_steps=4, warmup_steps=0, **options)
    result.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=jit_compile,
        run_eagerly=eager,
    )
    return result


def train(model, steps=2):
    logs = [model.train_on_batch(IMAGES, LABELS, return_dict=True) for _ in range(steps)]
    return values_of(model), logs


@pytest.fixture(scope="module")
def plain():
    return train(trainee())


@pytest.mark.parametrize("options", [{"accumulation_steps": 4}, {"jit_compile": True}])
def test_accumulation_and_xla_train_alike(plain, options):
    weights, logs = train(trainee(**options))
    for ours, theirs in zip(weights, plain[0], strict=True):
        # Sums in another order; Adam makes small gradients as large as others, and their errors.
        np.testing.assert_allclose(ours, theirs, atol=3e-5)
    for ours, theirs in zip(logs, plain[1], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["accuracy"] == theirs["accuracy"]


def test_rows_of_weight_zero_count_for_nothing():
    """Mean loss and accuracy of the rows of weight 1, over batches that hold unequally many."""
    model = trainee(eager=True)
    weights = np.array([1, 1, 1, 1, 1, 0, 0, 0], "float32")
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, weights)).batch(4)
    results = model.evaluate(data, return_dict=True, verbose=0)
    logits = model.predict_on_batch(IMAGES)[:5]
    losses = np.log(np.exp(logits).sum(1)) - (logits * LABELS[:5]).sum(1)
    assert results["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    right = (logits.argmax(1) == LABELS[:5].argmax(1)).mean()
    assert results["accuracy"] == pytest.approx(right)


def test_average_takes_the_weights_place_only_while_testing():
    model = trainee(eager=True, ema_momentum=0.5)
    start = [np.array(v) for v in model.trainable_variables]
    first = [np.array(v) for v in train(model, 1)[0]]
    average = [np.array(v) for v in model.optimizer._model_variables_moving_average]
    callback = WeightAverage()
    callback.set_model(model)
    trained = [np.array(v) for v in model.trainable_variables]
    assert len(first) >= len(trained)
    # Keras begins the average with the first weights that a step made, then halves.
    train(model, 1)
    second = [np.array(v) for v in model.trainable_variables]
    average = [np.array(v) for v in model.optimizer._model_variables_moving_average]
    for mean, one, two in zip(average, trained, second, strict=True):
        np.testing.assert_allclose(mean, (one + two) / 2, atol=1e-6)
    callback.on_test_begin()
    for variable, mean in zip(model.trainable_variables, average, strict=True):
        np.testing.assert_array_equal(variable, mean)
    callback.on_test_end()
    for variable, value in zip(model.trainable_variables, second, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert any(np.abs(a - b).max() > 0 for a, b in zip(start, second, strict=True))


def test_state_is_everything():
    """Two steps, or one, a copy of the state into another model, and the second there."""
    straight = trainee(eager=True, ema_momentum=0.9)
    train(straight, 2)
    first, second = (trainee(eager=True, ema_momentum=0.9) for _ in range(2))
    train(first, 1)
    restore_state(second, capture_state(first), "a test")
    train(second, 1)
    expected, ours = capture_state(straight), capture_state(second)
    assert len(expected) > 3 * len(straight.trainable_variables)
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_state_of_another_model_is_refused_and_nothing_changes():
    model = trainee()
    before = values_of(model)
    state = capture_state(model)
    name = next(iter(state))
    wrong = {**state, name: np.zeros((1, 2, 3), "float32")}
    with pytest.raises(ValueError, match="1 variables differ"):
        restore_state(model, wrong, "a test")
    with pytest.raises(ValueError, match="of the same model and optimizer"):
        restore_state(model, {name: state[name]}, "a test")
    for value, variable in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(value, variable)


def test_lora_trains_low_rank_changes_and_is_merged():
    classifier = small_model(classifier_activation=None)
    model = trainee(eager=True, lora_rank=2, model=classifier)
    before = {v.path: np.array(v) for v in model.weights}
    train(model)
    moved = {v.path for v in model.weights if np.abs(np.array(v) - before[v.path]).max() > 0}
    assert any("lora_kernel_b" in path for path in moved)
    assert all("lora" in path or "norm" in path or "head" in path for path in moved)
    target = small_model(classifier_activation=None)
    copy_weights(classifier, target)
    assert not any("lora" in v.path for v in target.weights)
    np.testing.assert_allclose(
        target.predict_on_batch(IMAGES), model.predict_on_batch(IMAGES), atol=1e-4
    )


def test_memory_of_variables_and_activations():
    model = trainee()
    parameters = model.count_params()
    # Weights, gradients and two moments in float32, and some counters.
    assert variable_bytes(model) == pytest.approx(16 * parameters, rel=0.01)
    image = activation_bytes(small_model())
    # At least what goes into the dense layers of the transformer blocks.
    assert image > 4 * (25 * 16 + 2 * 4 * 24) * 2
    less = activation_bytes(small_model(gradient_checkpointing=True))
    assert less < image
