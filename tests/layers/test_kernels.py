"""TensorFlow's kernels against the portable ones: values, and gradients against automatic ones."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.layers import TransformerBlock, kernels
from keras_crossvit.layers.kernels import portable
from keras_crossvit.training.memory import activation_bytes
from tests.base import any_design, pixels, skip_without, small_model

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's kernels are tested"
)


def draws(*shapes, dtype="float32"):
    random = np.random.default_rng(0)
    return [tf.constant(random.normal(size=shape), dtype) for shape in shapes]


# Name -> shapes of the tensors, further arguments.
CASES = {
    "mlp": ([(2, 5, 6), (6, 9), (9,), (9, 4), (4,)], []),
    "attention": ([(2, 5, 3 * 8)], [4]),
    "layer_norm": ([(2, 5, 6), (6,), (6,)], [1e-6]),
}


def both(name, dtype="float32", training=True):
    """Result and gradients of the two kernels `name`, for the same upstream gradient."""
    shapes, further = CASES[name]
    tensors = draws(*shapes, dtype=dtype)
    found = []
    for module, arguments in ((kernels, (*further, training)), (portable, further)):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = getattr(module, name)(*tensors, *arguments)
            (upstream,) = draws(result.shape, dtype=result.dtype)
        found.append((result, tape.gradient(result, tensors, upstream)))
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, training):
    (result, gradients), (wanted, wanted_gradients) = both(name, training=training)
    np.testing.assert_allclose(result, wanted, atol=2e-6)
    assert len(gradients) == len(CASES[name][0])
    for gradient, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "layer_norm"])  # Keras' attention itself rounds
def test_float64_is_not_rounded(name):
    (result, gradients), (wanted, wanted_gradients) = both(name, "float64")
    for value, expected in zip([result, *gradients], [wanted, *wanted_gradients], strict=True):
        assert value.dtype == tf.float64
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_bfloat16_stays_near_float32(name):
    (result, gradients), _ = both(name, "bfloat16")
    (wanted, wanted_gradients), _ = both(name)
    for value, expected in zip([result, *gradients], [wanted, *wanted_gradients], strict=True):
        assert value.dtype == tf.bfloat16
        difference = np.abs(np.array(tf.cast(value, tf.float32)) - expected)
        assert np.mean(difference) < 0.03 * np.mean(np.abs(expected))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_bias_gets_the_whole_sum_of_its_gradient(dtype):
    """TensorFlow's own stops growing at 256 tokens in bfloat16."""
    x, kernel, bias = tf.ones((40, 401, 2), dtype), tf.ones((2, 3), dtype), tf.zeros(3, dtype)
    with tf.GradientTape() as tape:
        tape.watch(bias)
        y = kernels.dense(x, kernel, bias, training=True)
    np.testing.assert_allclose(tape.gradient(y, bias), [40 * 401] * 3, rtol=0.005)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_mlps_biases_get_the_whole_sum_of_their_gradients(dtype):
    tensors = draws((40, 401, 2), (2, 3), (3,), (3, 2), (2,), dtype=dtype)
    upstream = tf.cast(draws((40, 401, 2))[0] + 0.3, dtype)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = kernels.mlp(*tensors, training=True)
    found = tape.gradient(y, tensors[4], upstream)
    exact = np.array(tf.cast(upstream, tf.float32)).sum((0, 1), dtype="float64")
    np.testing.assert_allclose(np.array(found, "float64"), exact, rtol=0.004)


def test_all_biases_learn_alike_in_bfloat16():
    """Of convolutions and of the fusion's projections, too."""
    config = any_design("all_attention", "conv")
    images, gradients = tf.constant(pixels(64, 48, 48)), []
    for dtype in ("mixed_bfloat16", "float32"):
        model = small_model(config, classifier_activation=None, dtype=dtype)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(images, training=True) * tf.range(5.0))
        biases = [v.value for v in model.trainable_variables if v.path.endswith("/bias")]
        gradients.append([np.array(x) for x in tape.gradient(loss, biases)])
    for ours, exact in zip(*gradients, strict=True):
        assert np.linalg.norm(ours - exact) <= 0.1 * np.linalg.norm(exact) + 1e-6


@pytest.fixture
def _gpu_without_libdevice(monkeypatch):
    """Makes the CPU stand in for a GPU whose XLA lacks CUDA's files."""
    module = sys.modules[kernels.mlp.__module__]

    def fail(x):
        raise tf.errors.InternalError(None, None, "libdevice not found at ./libdevice.10.bc\n...")

    devices = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: devices)
    monkeypatch.setattr(module, "_probe", fail)
    module._xla_compiles.cache_clear()
    yield
    module._xla_compiles.cache_clear()


@pytest.mark.usefixtures("_gpu_without_libdevice")
def test_a_gpu_for_which_xla_cannot_compile_trains_without_it():
    arguments = draws((3, 4, 7), (7, 5), (5,), (5, 2), (2,))  # shapes that no test traced before

    @tf.function(autograph=False)
    def gradients(mlp, *further):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = mlp(*arguments, *further)
        return tape.gradient(result, arguments)

    with pytest.warns(UserWarning, match=r"XLA cannot compile .*libdevice not found"):
        traced = gradients.get_concrete_function(kernels.mlp, True)
    library = traced.graph.as_graph_def().library.function
    assert not any("_XlaMustCompile" in function.attr for function in library)
    # No second warning: the tests turn the package's warnings into errors.
    for value, expected in zip(traced(), gradients(portable.mlp), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    both("layer_norm")


@pytest.mark.parametrize("others", [[], ["GPU"], ["TPU_SYSTEM", "TPU"]])
def test_sums_and_means_are_products_on_cpus_alone(others, monkeypatch):
    module = sys.modules[kernels.mlp.__module__]
    devices = [tf.config.LogicalDevice(f"/device:{kind}:0", kind) for kind in ["CPU", *others]]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    (x,) = draws((5, 7))
    for function, expected in (
        (module._compiled_mean, x.numpy().mean(1, keepdims=True)),
        (module._sum_of_rows, x.numpy().sum(0)),
    ):
        traced = tf.function(function, autograph=False)
        np.testing.assert_allclose(traced(x), expected, atol=1e-6)
        operations = {op.type for op in traced.get_concrete_function(x).graph.get_operations()}
        assert ("MatMul" in operations) == (not others)
        assert bool({"Mean", "Sum"} & operations) == bool(others)


@pytest.fixture
def _checked_numbers():
    """TensorFlow looks for NaN and infinity after each operation, which XLA cannot."""
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@pytest.mark.usefixtures("_checked_numbers")
@pytest.mark.parametrize("name", CASES)
def test_training_while_tensorflow_checks_its_numbers(name):
    shapes, further = CASES[name]
    shapes = [(2, 11, *shapes[0][2:]), *shapes[1:]]  # which no test traced before

    def gradients(module, *more):
        def compute(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                result = getattr(module, name)(*tensors, *further, *more)
            return tape.gradient(result, tensors)

        return tf.function(compute, autograph=False)

    tensors = draws(*shapes)
    found, wanted = gradients(kernels, True)(*tensors), gradients(portable)(*tensors)
    for value, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="had NaN values"):
        gradients(kernels, True)(tensors[0] * np.nan, *tensors[1:])


def test_layer_norm_computes_in_float32():
    (x,) = draws((4, 64), dtype="bfloat16")
    gamma, beta = tf.ones(64), tf.zeros(64)
    result = kernels.layer_norm(x, gamma, beta, 1e-6, True)
    assert result.dtype == tf.bfloat16
    exact = np.array(x, "float64")
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    assert np.abs(np.array(result, "float64") - exact).max() < 0.01  # one rounding at the end


@pytest.mark.parametrize("shape", [(None, 6), (None, 5, 6), (None, None, 6), (2, None, 6)])
def test_dense_of_shapes_that_are_not_known(shape):
    kernel, bias = draws((6, 3), (3,))
    signature = [tf.TensorSpec(shape), tf.TensorSpec((6, 3)), tf.TensorSpec((3,))]
    product = tf.function(kernels.dense, input_signature=signature)
    (x,) = draws([size or 2 for size in shape])
    np.testing.assert_allclose(product(x, kernel, bias), x.numpy() @ kernel + bias, atol=1e-6)
    np.testing.assert_allclose(kernels.dense(x, kernel), x.numpy() @ kernel.numpy(), atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_attention_to_a_number_of_tokens_that_is_not_known(training):
    def result_and_gradient(qkv):
        with tf.GradientTape() as tape:
            tape.watch(qkv)
            result = kernels.attention(qkv, 4, training)
        return result, tape.gradient(result, qkv, result)

    def attend(qkv):
        return kernels.attend(*tf.split(qkv, 3, axis=-1), 4)

    signature = [tf.TensorSpec((None, None, 24))]
    in_graph = tf.function(result_and_gradient, input_signature=signature)
    separately = tf.function(attend, input_signature=signature)
    for length in (5, 7):
        (qkv,) = draws((2, length, 24))
        (result, gradient), (wanted, expected) = in_graph(qkv), result_and_gradient(qkv)
        np.testing.assert_allclose(result, wanted, atol=1e-6)
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
        np.testing.assert_allclose(separately(qkv), wanted, atol=1e-6)


@pytest.mark.parametrize(("num_heads", "length"), [(1, 9), (2, 9), (2, 1)])
def test_attention_in_openvino(num_heads, length):
    """It took transpositions that move nothing, as those of one head, for others."""
    skip_without("openvino")
    import openvino

    (qkv,) = draws((3, length, 3 * 8))
    signature = [tf.TensorSpec((None, length, 3 * 8))]
    function = tf.function(lambda x: kernels.attention(x, num_heads), input_signature=signature)
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    run = openvino.compile_model(openvino.convert_model(function), "CPU", precise)
    np.testing.assert_allclose(run(qkv.numpy())[0], portable.attention(qkv, num_heads), atol=1e-5)


def test_what_the_backward_pass_of_an_encoder_keeps():
    """Nine widths and the hidden layer of each token, and no attention map."""
    length, width, hidden = 50, 8, 24
    tokens = keras.Input((length, width))
    block = TransformerBlock(num_heads=2, mlp_ratio=hidden / width)
    # Input and result of both norms, queries, keys, values, and what attention returns, which
    # is counted in two shapes.
    expected = 4 * length * ((2 + 2 + 3 + 2) * width + hidden)
    assert activation_bytes(keras.Model(tokens, block(tokens))) == expected
