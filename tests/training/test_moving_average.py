"""The moving average of the weights that AdamW and SGD keep."""

import keras
import numpy as np
import pytest

from keras_crossvit.training import make_optimizer
from tests.base import JAX_XLA_FLAGS, run_python
from tests.training.test_optimizer import gradients_of, small


@pytest.mark.main_job
def test_averages_lie_where_their_variables_do():
    """A kernel is divided among the devices of a distribution, and so is its average."""
    code = """if True:
        import keras
        from keras_crossvit.optimizer import AdamW

        layouts = keras.distribution.LayoutMap(keras.distribution.DeviceMesh((2,), ("model",)))
        layouts[".*kernel"] = (None, "model")
        keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layouts))
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, name="dense")])
        optimizer = AdamW(0.1, 0.0, ema_momentum=0.9)
        optimizer.build(model.trainable_variables)
        for variable in (model.layers[0].kernel, *optimizer.averages):
            print(*variable.value.sharding.spec)
    """
    flags = f"{JAX_XLA_FLAGS} --xla_force_host_platform_device_count=2"
    printed = run_python(code, KERAS_BACKEND="jax", XLA_FLAGS=flags)
    assert printed.splitlines() == ["None model", "None model", "None"]  # and the bias's


def test_average_begins_with_the_first_step_and_takes_the_weights_place():
    model = small(kernel_only=True)
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, ema_momentum=0.75)
    kernel, values = model.trainable_variables[0], []
    for step in range(3):
        optimizer.apply(gradients_of(model, seed=step))
        values.append(np.array(kernel))
    expected = 0.75 * (0.75 * values[0] + 0.25 * values[1]) + 0.25 * values[2]
    np.testing.assert_array_equal(kernel, values[2])
    optimizer.put_average_in_place(model.trainable_variables)
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_weight_without_a_gradient_is_its_own_average(kind):
    """Also one that is loaded after the optimizer was made, or has a gradient only later."""
    model = small()
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, optimizer=kind, ema_momentum=0.75)
    kernel, bias = model.trainable_variables
    bias.assign([3.0, 4.0])
    gradients, kernels = gradients_of(model), []
    for _ in range(2):
        optimizer.apply([gradients[0], None])
        kernels.append(np.array(kernel))
    np.testing.assert_array_equal(optimizer.averages[1], [3, 4])
    optimizer.apply([None, gradients[1]])
    later = np.array(bias)
    assert np.abs(later - [3, 4]).min() > 0.01
    optimizer.put_average_in_place(model.trainable_variables)
    expected = 0.75**2 * kernels[0] + (1 - 0.75**2) * kernels[1]
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    np.testing.assert_allclose(bias, 0.75 * np.array([3, 4]) + 0.25 * later, rtol=1e-6)


def test_the_average_of_weights_with_16_bits_moves():
    """In bfloat16 a momentum of 0.999 is 1."""
    paths, inputs = {}, keras.Input((3,))
    for policy in ("float32", "bfloat16"):
        model = keras.Model(inputs, keras.layers.Dense(2, name="fc", dtype=policy)(inputs))
        optimizer = make_optimizer(model, 0.5, 0.0, 10**6, 0, ema_momentum=0.999)
        paths[policy] = [variable.path.partition("/")[2] for variable in optimizer.variables]
    kernel, values = model.trainable_variables[0], []
    for _ in range(2):
        optimizer.apply([keras.ops.ones(v.shape, v.dtype) for v in model.trainable_variables])
        values.append(keras.ops.convert_to_numpy(kernel).astype("float32"))
    average = np.array(optimizer.averages[0])
    np.testing.assert_allclose(average, 0.999 * values[0] + 0.001 * values[1], rtol=1e-6)
    assert average.dtype == "float32"
    assert np.abs(average - values[0]).min() > 1e-4
    assert paths["bfloat16"] == paths["float32"]  # as checkpoints have them
    assert {"fc_kernel_average", "fc_bias_average"} < {*paths["float32"]}
    optimizer.put_average_in_place(model.trainable_variables)
    expected = keras.ops.cast(average, "bfloat16")
    np.testing.assert_array_equal(kernel, expected)


@pytest.mark.filterwarnings("ignore:Layer InputLayer")
def test_scales_of_float8_are_neither_clipped_nor_averaged():
    """Their gradients are their new values."""
    model = small()
    model.quantize("float8")
    kernel, before = model.get_layer("fc").kernel, np.array(model.get_layer("fc").kernel)
    scales = [v for v in model.trainable_variables if v.overwrite_with_gradient]
    assert len(scales) == len(model.trainable_variables) - 2 > 0
    options = {"optimizer": "sgd", "clip_norm": 1.0, "ema_momentum": 0.5}
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, **options)
    optimizer.apply(
        [
            keras.ops.full(v.shape, 100.0 if v.overwrite_with_gradient else 1.0)
            for v in model.trainable_variables
        ]
    )
    moved = before - 0.1 / np.sqrt(8)
    np.testing.assert_allclose(kernel, moved, rtol=1e-5)
    kernel.assign(before)
    optimizer.put_average_in_place(model.trainable_variables)
    np.testing.assert_allclose(kernel, moved, rtol=1e-5)
    for scale in scales:
        np.testing.assert_array_equal(scale, np.full(scale.shape, 100))


def test_the_average_of_other_weights_is_refused_before_any_is_assigned():
    model, other = small(), small()
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, ema_momentum=0.5)
    kernel = model.trainable_variables[0]
    before = np.array(kernel)
    message = r"^`variables` must be among .* built for\. Received also: fc/kernel$"
    with pytest.raises(ValueError, match=message):
        optimizer.put_average_in_place([kernel, *other.trainable_variables])
    np.testing.assert_array_equal(kernel, before)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_weights_stay_before_the_first_step(kind):
    model = small()
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, optimizer=kind, ema_momentum=0.5)
    before = [np.array(variable) for variable in model.trainable_variables]
    optimizer.put_average_in_place(model.trainable_variables)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_an_optimizer_without_an_average_says_so():
    model = small()
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0)
    with pytest.raises(ValueError, match=r"^`ema_momentum` .* Received: ema_momentum=None$"):
        optimizer.put_average_in_place(model.trainable_variables)
