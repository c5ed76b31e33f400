"""AdamW and SGD: schedule, decay, clipping, and PyTorch's figures."""

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.optimizer import SGD, learning_rate_scales, learning_rate_schedule
from keras_crossvit.training import make_optimizer
from tests.base import run_python, small_config, small_model
from tests.data.pytorch_adamw import LEARNING_RATE, WEIGHT_DECAY
from tests.training.adamw_on_digits import follow


def small(kernel_only=False, dtype="float32"):
    """A dense layer with known weights, 3 to 2."""
    inputs = keras.Input((3,))
    layer = keras.layers.Dense(2, name="fc", use_bias=not kernel_only, dtype=dtype)
    model = keras.Model(inputs, layer(inputs))
    model.get_layer("fc").kernel.assign(np.arange(6, dtype="float32").reshape(3, 2) / 5)
    return model


def gradients_of(model, seed=0, scale=1.0):
    draw = np.random.default_rng(seed)
    return [
        keras.ops.convert_to_tensor(scale * draw.normal(size=v.shape).astype("float32"))
        for v in model.trainable_variables
    ]


def test_rate_rises_linearly_then_falls_as_a_cosine():
    schedule = learning_rate_schedule(0.4, 0.0, total_steps=30, warmup_steps=10)
    rate = [float(schedule(step)) for step in range(31)]
    assert rate[:11] == pytest.approx([0.04 * step for step in range(11)], abs=1e-6)
    cosine = [0.2 * (1 + np.cos(np.pi * step / 20)) for step in range(21)]
    assert rate[10:] == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize("warmup", [0, 10])
def test_rate_ends_at_the_final_one(warmup):
    schedule = learning_rate_schedule(0.4, 0.1, total_steps=30, warmup_steps=warmup)
    steps = warmup, warmup + (30 - warmup) // 2, 30
    assert [float(schedule(step)) for step in steps] == pytest.approx([0.4, 0.25, 0.1])


def test_rate_of_a_run_that_is_all_warmup():
    schedule = learning_rate_schedule(0.4, 0.0, total_steps=10, warmup_steps=10)
    rate = [float(schedule(step)) for step in range(11)]
    assert rate == pytest.approx([0.04 * step for step in range(11)], abs=1e-6)


def test_rate_without_warmup_begins_at_its_highest():
    optimizer = make_optimizer(small(), 0.4, 0.05, total_steps=30, warmup_steps=0)
    assert float(optimizer.learning_rate) == pytest.approx(0.4)


def test_only_kernels_decay():
    """With zero gradients, AdamW moves what decays, by rate x decay, and nothing else."""
    model = kc.CrossViT(kc.CrossViTConfig.preset("crossvit_digits"), weights=None, classes=10)
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    optimizer = make_optimizer(model, 0.4, 0.05, total_steps=30, warmup_steps=0)
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    moved = 0
    for variable, value in zip(model.trainable_variables, before, strict=True):
        expected = value * (1 - 0.4 * 0.05) if variable.path.endswith("kernel") else value
        np.testing.assert_allclose(variable, expected, rtol=1e-6, err_msg=variable.path)
        moved += variable.path.endswith("kernel")
    assert moved == sum(v.ndim in (2, 4) for v in model.trainable_variables)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_is_excluded_does_not_decay(kind):
    """By Keras' own method, before the optimizer is built."""
    model = small()
    made = make_optimizer(model, 0.4, 0.05, total_steps=30, warmup_steps=0, optimizer=kind)
    optimizer = type(made).from_config(made.get_config())
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    optimizer.build(model.trainable_variables)
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_adamw_follows_pytorch():
    """100 steps on real digits from trained weights: the losses of torch.optim.AdamW."""
    ours, theirs = follow()
    np.testing.assert_allclose(ours, theirs, rtol=0.01)
    keras_own = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    others, _ = follow(keras_own)
    assert np.abs(others / theirs - 1).max() > 0.02  # so the bound tells the two apart


@pytest.mark.main_job
def test_adamw_follows_pytorch_on_jax(tmp_path):
    code = """if True:
        import sys
        import numpy as np
        from tests.training.adamw_on_digits import follow
        np.save(sys.argv[1], follow())
    """
    run_python(code, tmp_path / "losses.npy", KERAS_BACKEND="jax")
    ours, theirs = np.load(tmp_path / "losses.npy")
    np.testing.assert_allclose(ours, theirs, rtol=0.01)


def test_the_loss_is_scaled_for_a_model_in_mixed_float16_whatever_the_global_policy():
    model = kc.CrossViT(small_config(), weights=None, classes=2, dtype="mixed_float16")
    optimizer = make_optimizer(model, 0.1, 0.0, 9, 0, ema_momentum=0.5)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    model.compile(optimizer)
    assert model.optimizer is optimizer
    optimizer.inner_optimizer.put_average_in_place(model.trainable_variables)


def test_it_comes_built():
    model = small()
    optimizer = make_optimizer(model, 0.1, 0.05, total_steps=3, warmup_steps=1)
    assert optimizer.built
    # Two moments for each variable, and the step number.
    assert len(optimizer.variables) == 2 * len(model.trainable_variables) + 1


@pytest.mark.parametrize(("kind", "slots"), [("adamw", 2), ("sgd", 1)])
def test_its_variables_have_one_name_in_tensorflow_and_their_own_in_keras(kind, slots):
    """With a name for each, making them takes TensorFlow more than twice as long."""
    model = small()
    made = make_optimizer(model, 0.4, 0.05, 30, 0, optimizer=kind, ema_momentum=0.9).variables
    made = [variable for variable in made if len(variable.shape)]
    assert len(made) == (slots + 1) * len(model.trainable_variables)
    assert {variable.value.name for variable in made} == {"variable:0"}
    assert len({variable.path for variable in made}) == len(made)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_is_the_formula(dtype):
    """Three steps by hand, in float64; float32 has an operation of TensorFlow's."""
    model = small(dtype=dtype)
    optimizer = make_optimizer(model, 0.01, 0.1, 10**9, 0)
    weights = [np.array(v, "float64") for v in model.trainable_variables]
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for step in range(1, 4):
        gradients = gradients_of(model, seed=step, scale=1e-7)  # where epsilon matters
        optimizer.apply(gradients)
        for i, gradient in enumerate(np.array(g, "float64") for g in gradients):
            weights[i] *= 1 - 0.01 * 0.1 * (weights[i].ndim == 2)
            m[i] += 0.1 * (gradient - m[i])
            v[i] += 0.001 * (gradient**2 - v[i])
            denominator = np.sqrt(v[i] / (1 - 0.999**step)) + 1e-8
            weights[i] -= 0.01 * m[i] / (1 - 0.9**step) / denominator
    for variable, expected in zip(model.trainable_variables, weights, strict=True):
        np.testing.assert_allclose(variable, expected, rtol=1e-5, atol=1e-7)


def test_sgd_is_pytorchs():
    """Decay goes through the momentum: buffer = 0.9 buffer + gradient + decay x weight."""
    model = small()
    kernel = model.get_layer("fc").kernel
    weight = np.array(kernel)
    optimizer = make_optimizer(model, 0.1, 0.5, 10**6, 0, optimizer="sgd")
    draw, buffer = np.random.default_rng(1), 0.0
    for _ in range(3):
        gradient = draw.normal(size=(3, 2)).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient), keras.ops.zeros((2,))])
        buffer = 0.9 * buffer + gradient + 0.5 * weight
        weight = weight - 0.1 * buffer
    np.testing.assert_allclose(kernel.numpy(), weight, atol=1e-5)
    np.testing.assert_array_equal(model.get_layer("fc").bias.numpy(), 0)


@pytest.mark.parametrize(("norm", "scale"), [(0.5, 0.5 / 5), (7.0, 1.0)])
def test_all_gradients_together_are_clipped(norm, scale):
    """SGD's first step is rate times gradient; a gradient of norm 5 is clipped to `norm`."""
    model = small()
    before = [np.array(v) for v in model.trainable_variables]
    gradients = [np.zeros(v.shape, "float32") for v in model.trainable_variables]
    gradients[0][1, 1], gradients[1][0] = 3.0, 4.0
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, optimizer="sgd", clip_norm=norm)
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients])
    for variable, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(variable, old - 0.1 * scale * gradient, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_norm_of_other_types_has_the_range_of_float32(dtype):
    """The square of 300 is beyond float16."""
    variable = keras.Variable([1.0, 2.0], dtype=dtype, name="bias")
    optimizer = SGD(1.0, 0.0, clip_norm=1.0)
    optimizer.build([variable])
    optimizer.apply([keras.ops.cast([300.0, -400.0], dtype)])
    np.testing.assert_allclose(np.array(variable, "float32"), [0.4, 2.8], rtol=0.01)


def test_a_small_factor_of_clipping_is_not_rounded_to_float16():
    variable = keras.Variable(np.zeros(10**6), dtype="float16", name="bias")
    optimizer = SGD(1.0, 0.0, clip_norm=1.0)
    optimizer.build([variable])
    optimizer.apply([keras.ops.full([10**6], 4e4, "float16")])  # the norm is 4e7
    np.testing.assert_allclose(np.array(variable, "float32"), -1e-3, rtol=0.02)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others have no slices")
def test_rows_of_an_embedding_that_are_looked_up_twice_are_clipped_as_one():
    import tensorflow as tf

    variable = keras.Variable(np.zeros((3, 2)), dtype="float32", name="embeddings")
    optimizer = SGD(1.0, 0.0, clip_norm=1.0)
    optimizer.build([variable])
    optimizer.apply([tf.IndexedSlices(tf.constant([[1.0, 2.0], [2.0, 2.0]]), [1, 1], [3, 2])])
    np.testing.assert_allclose(variable, [[0, 0], [-0.6, -0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_clipping_hides_no_gradient_without_a_norm(value):
    """A square beyond float32 included: nothing would be learnt, and the loss would not say so."""
    model = small()
    gradients = [np.zeros(v.shape, "float32") for v in model.trainable_variables]
    gradients[0][1, 1] = value
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, optimizer="sgd", clip_norm=1.0)
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients])
    for variable in model.trainable_variables:
        assert np.isnan(variable).all()


def test_variables_without_a_gradient_are_left_out_of_the_clipping():
    model = small()
    kernel, bias = model.trainable_variables
    before = np.array(kernel)
    optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, optimizer="sgd", clip_norm=1.0)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([keras.ops.convert_to_tensor(np.ones((3, 2), "float32")), None])
    np.testing.assert_allclose(kernel, before - 0.1 / np.sqrt(6), rtol=1e-5)
    np.testing.assert_array_equal(bias, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.03), ("float64", 1e-4)])
def test_adamw_of_other_types(dtype, tolerance):
    """As in float32, except for the rounding of the state."""
    moved = {}
    for policy in ("float32", dtype):
        inputs = keras.Input((3,))
        layer = keras.layers.Dense(2, name="fc", dtype=policy, kernel_initializer="zeros")
        model = keras.Model(inputs, layer(inputs))
        optimizer = make_optimizer(model, 0.1, 0.0, 10**6, 0, clip_norm=1.0, ema_momentum=0.5)
        for step in range(3):
            draw = np.random.default_rng(step)
            values = [draw.normal(size=v.shape) for v in model.trainable_variables]
            optimizer.apply([keras.ops.cast(value, policy) for value in values])
        moved[policy] = keras.ops.convert_to_numpy(layer.kernel).astype("float64")
    assert np.abs(moved["float32"]).min() > 0.01
    np.testing.assert_allclose(moved[dtype], moved["float32"], rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "AdamW"),
        ("learning_rate", 0.0),
        ("weight_decay", -0.1),
        ("final_learning_rate", float("nan")),
        ("clip_norm", 0.0),
        ("ema_momentum", 1.0),
        ("layer_decay", 7.5),
        ("layer_decay", 0.0),
        ("total_steps", 0),
        ("total_steps", 1.5),
        ("warmup_steps", -5),
        ("warmup_steps", 10),
    ],
)
def test_values_out_of_range(name, value):
    given = {"learning_rate": 0.1, "weight_decay": 0.0, "total_steps": 9, "warmup_steps": 0}
    with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}="):
        make_optimizer(small(), **{**given, name: value})


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_compiled_model_is_saved_with_its_optimizer(kind, tmp_path):
    """`model.save` and `load_model` alone, then the same step in both."""
    model = small()
    options = {"optimizer": kind, "clip_norm": 1.0, "ema_momentum": 0.5, "layer_decay": 0.5}
    model.compile(make_optimizer(model, 0.1, 0.05, 100, 10, **options), "mse")
    x, y = np.ones((4, 3), "float32"), np.zeros((4, 2), "float32")
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.optimizer.layer_decay == 0.5
    assert SGD.from_config(SGD(0.1, 0.0, name="mine").get_config()).name == "mine"
    for one in (model, loaded):
        one.train_on_batch(x, y)
    pairs = zip(model.variables, loaded.variables, strict=True)
    states = zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
    for ours, theirs in [*pairs, *states]:
        np.testing.assert_array_equal(ours, theirs)


SCALES = {
    "small_patch_embed": 0.5**4,
    "large_class_token": 0.5**4,
    "small_position_embedding": 0.5**4,
    "stage_0": 0.5**3,
    "stage_1": 0.5**2,
    "stage_2": 0.5,
    "large_norm": 0.5,
    "large_head": 1.0,
}


class TestLayerDecay:
    """The groups of timm's `param_groups_layer_decay`."""

    def test_factors(self):
        model = small_model(small_config(num_stages=3))
        paths = [variable.path for variable in model.trainable_variables]
        found = dict(zip(paths, learning_rate_scales(paths, 0.5), strict=True))
        for path, scale in found.items():
            assert scale == SCALES.get(path.partition("/")[0], scale), path
        assert {path.partition("/")[0] for path in paths} > SCALES.keys()

    def test_of_one_branch(self):
        paths = ["large_patch_embed/x", "large_block_0/x", "large_block_11/x", "large_head/x"]
        assert learning_rate_scales(paths, 0.5) == [0.5**13, 0.5**12, 0.5, 1.0]

    def test_inside_of_another_model(self):
        """A model that makes this one in its `build` puts its own name before the paths."""
        paths = ["small_patch_embed/x", "stage_0/x", "stage_1/x", "small_norm/x", "small_head/x"]
        inside = [f"outer/{path}" for path in paths]
        assert learning_rate_scales(inside, 0.5) == learning_rate_scales(paths, 0.5)
        assert learning_rate_scales(inside, 0.5) == [0.5**3, 0.5**2, 0.5, 0.5, 1.0]

    @pytest.mark.parametrize("name", ["adamw", "sgd"])
    def test_a_step_is_as_much_smaller(self, name):
        """The first step of AdamW is as large as the rate, that of SGD as rate times gradient."""
        model = small_model(small_config(num_stages=3))
        before = [np.array(v) for v in model.trainable_variables]
        optimizer = make_optimizer(model, 0.4, 0.0, 30, 0, optimizer=name, layer_decay=0.5)
        optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables])
        for variable, value in zip(model.trainable_variables, before, strict=True):
            scale = SCALES.get(variable.path.partition("/")[0])
            if scale is not None:
                np.testing.assert_allclose(value - variable, 0.4 * scale, rtol=1e-3)

    @pytest.mark.parametrize("name", ["adamw", "sgd"])
    def test_the_decay_is_as_much_smaller(self, name):
        """With zero gradients the weights move by rate times decay alone."""
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(3, name="stage_0")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2, name="large_head")(hidden))
        kernels = [model.get_layer(layer).kernel for layer in ("stage_0", "large_head")]
        before = [np.array(kernel) for kernel in kernels]
        optimizer = make_optimizer(model, 0.4, 0.5, 30, 0, optimizer=name, layer_decay=0.5)
        optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
        for kernel, value, scale in zip(kernels, before, (0.5, 1.0), strict=True):
            np.testing.assert_allclose(kernel, value * (1 - 0.4 * 0.5 * scale), rtol=1e-5)
