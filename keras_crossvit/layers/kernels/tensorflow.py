"""The same for TensorFlow: shapes that its graph optimizer fuses, gradients that store less.

Tokens are flattened to two axes before a matrix product, since only then does TensorFlow fuse
product, bias and GELU into one kernel. Where a backward pass follows, the functions have custom
gradients, which store what is expensive to compute and recompute the rest:

| | stored for each token | by automatic differentiation |
| --- | ---: | ---: |
| `layer_norm` | C | about 4 C |
| `attention` | 4 C (queries, keys, values, result) | about 6 C + 2 h N |
| `mlp` of hidden width D | C + D | about C + 5 D |

In training, MLPs, attentions and their gradients are functions that the graph calls: they
are traced and optimised once for each shape, and what a gradient recomputes waits until all its
inputs are there. Inlined, it could run as early as the forward pass, and stay in memory.

Without a backward pass there is no custom gradient, because the nodes that mark it would
prevent the fusion. Arguments and results are those of `portable`.
"""

import functools
import math
import warnings

import tensorflow as tf
from tensorflow.python.framework.op_callbacks import (  # not exported elsewhere
    should_invoke_op_callbacks,
)

from keras_crossvit.common.tf_data import noinline
from keras_crossvit.common.typing import Tensor
from keras_crossvit.layers.activations import gelu
from keras_crossvit.layers.sizes import size


def _one_kernel(function):
    """Compiles element-wise operations to one pass over memory, instead of one for each.

    In 16 bits they should compute in float32, where no result between them has to be rounded: it
    is more exact, and takes half the time.

    Used in training only: a SavedModel must not need XLA, which a server may lack. Not used either
    while TensorFlow checks the result of each operation (`tf.debugging.enable_check_numerics`):
    XLA has no such operation.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*arguments):
        by_xla = not should_invoke_op_callbacks() and _xla_compiles()
        return (compiled if by_xla else function)(*arguments)

    return call


@functools.cache
def _xla_compiles():
    """Whether XLA compiles for the GPUs of this process; tried once, on each.

    It needs CUDA's libdevice and ptxas, which `tensorflow[and-cuda]` brings and plain
    `tensorflow` does not. On a CPU it needs nothing.
    """
    with tf.init_scope():
        for gpu in tf.config.list_logical_devices("GPU"):
            try:
                with tf.device(gpu.name):
                    _probe(tf.ones(1))
            except tf.errors.OpError as error:
                warnings.warn(
                    f"XLA cannot compile for {gpu.name}, so training does without it, more "
                    "slowly; tensorflow[and-cuda] includes what it needs. Received: "
                    f"{error.message.splitlines()[0]}",
                    stacklevel=2,
                )
                return False
    return True


@tf.function(jit_compile=True, autograph=False)
def _probe(x):
    return tf.math.erf(x) * x  # erf is one of the functions that need libdevice


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None = None, training: bool = False) -> Tensor:
    y = tf.matmul(_rows(x), kernel)
    if bias is not None:
        y = add_bias(y, bias, training)
    return _unflatten(y, x)


def add_bias(y: Tensor, bias: Tensor, training: bool = False) -> Tensor:
    # On a CPU the gradient of `bias_add` is summed up in its own type, and in bfloat16 a sum over
    # thousands of tokens soon no longer grows.
    if training and y.dtype == tf.bfloat16:
        return _add_summed_bias(y, bias)
    return tf.nn.bias_add(y, bias)


@tf.custom_gradient
def _add_summed_bias(y, bias):
    def backward(dy):
        return dy, _sum_of_rows(dy)

    return tf.nn.bias_add(y, bias), backward


def mlp(
    x: Tensor,
    kernel_1: Tensor,
    bias_1: Tensor,
    kernel_2: Tensor,
    bias_2: Tensor,
    training: bool = False,
) -> Tensor:
    function = _trained_mlp if training else _mlp
    return function(x, kernel_1, bias_1, kernel_2, bias_2)


def attention(qkv: Tensor, num_heads: int, training: bool = False) -> Tensor:
    function = _trained_attention if training else _attention
    return function(qkv, num_heads)


def attend(queries: Tensor, keys: Tensor, values: Tensor, num_heads: int) -> Tensor:
    queries, keys, values = (_heads(x, num_heads) for x in (queries, keys, values))
    # Converters know this as one operation only if the scores are scaled, not the queries.
    scores = tf.matmul(queries, keys, transpose_b=True) * _scale(queries)
    return _merge(tf.matmul(tf.nn.softmax(scores), values))


def layer_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, training: bool = False
) -> Tensor:
    # Compiling takes 0.3 s, which inputs of a single token never make up for.
    function = _trained_layer_norm if training and x.shape[-2] != 1 else _layer_norm
    return function(x, gamma, beta, epsilon)


def _at_least_float32(x):
    """`x` in at least float32."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def _sum_of_rows(x):
    """The sum over all but the last axis.

    In float32, since TensorFlow itself sums up 16 bits in 16 bits on a GPU, and float16 also on a
    CPU. Products with ones, which a CPU computes in float32 but for float16, take half the time.
    """
    rows = _rows(x)
    if _only_cpus() and x.dtype != tf.float16:
        return tf.matmul(tf.ones((1, size(rows, 0)), x.dtype), rows)[0]
    return tf.cast(tf.reduce_sum(_at_least_float32(rows), axis=0), x.dtype)


def _only_cpus():
    """Whether sums may be products with ones; a GPU may round their float32 to TF32."""
    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def _rows(x):
    return tf.reshape(x, (-1, x.shape[-1]))


def _unflatten(y, x):
    """Rows `(n, D)` in the shape of `x` but for the last axis."""
    if len(x.shape) == 2:
        return y
    unknown = [axis for axis, size in enumerate(x.shape[:-1]) if size is None]
    shape = [-1 if size is None else size for size in x.shape[:-1]]
    if len(unknown) > 1:
        shape = tf.unstack(tf.shape(x))[:-1]
    return tf.reshape(y, (*shape, y.shape[-1]))


def _mlp(x, kernel_1, bias_1, kernel_2, bias_2):
    return _unflatten(dense(gelu(dense(_rows(x), kernel_1, bias_1)), kernel_2, bias_2), x)


@tf.custom_gradient
def _trained_mlp(x, kernel_1, bias_1, kernel_2, bias_2):
    y, hidden = _mlp_forward(x, kernel_1, bias_1, kernel_2, bias_2)
    return y, lambda dy: _mlp_backward(dy, x, hidden, kernel_1, kernel_2)


@noinline
def _mlp_forward(x, kernel_1, bias_1, kernel_2, bias_2):
    hidden = dense(_rows(x), kernel_1, bias_1)
    return _unflatten(dense(_one_kernel_gelu(hidden), kernel_2, bias_2), x), hidden


@noinline
def _mlp_backward(dy, x, hidden, kernel_1, kernel_2):
    dy = _rows(dy)
    d_activated = tf.matmul(dy, kernel_2, transpose_b=True)
    # As one kernel, which would keep what they share in memory, these take half as long again.
    activated, d_hidden = _one_kernel_gelu(hidden), _gelu_backward(hidden, d_activated)
    return (
        _unflatten(tf.matmul(d_hidden, kernel_1, transpose_b=True), x),
        tf.matmul(_rows(x), d_hidden, transpose_a=True),
        _sum_of_rows(d_hidden),
        tf.matmul(activated, dy, transpose_a=True),
        _sum_of_rows(dy),
    )


@_one_kernel
def _gelu_backward(x, gradient):
    """`gradient` times the derivative of `x Phi(x)`, `Phi(x) + x phi(x)`."""
    dtype = x.dtype
    x, gradient = _at_least_float32(x), _at_least_float32(gradient)
    share = 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))
    density = tf.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return tf.cast(gradient * (share + x * density), dtype)


def _attention(qkv, num_heads):
    queries, keys, values = _split(qkv, num_heads)
    return _merge(tf.matmul(_probabilities(queries, keys), values))


def _trained_attention(qkv, num_heads):
    @tf.custom_gradient
    def attend(qkv):
        result = _attention_forward(qkv, num_heads)
        return result, lambda d_result: _attention_backward(d_result, qkv, result, num_heads)

    return attend(qkv)


_attention_forward = noinline(_attention)


@noinline
def _attention_backward(d_result, qkv, result, num_heads):
    queries, keys, values = _split(qkv, num_heads)
    d_heads, heads = _heads(d_result, num_heads), _heads(result, num_heads)
    probabilities = _probabilities(queries, keys)
    # The gradient of softmax subtracts the weighted mean of the incoming gradient. Computed from
    # the result, this is a sum over channels for each query, not over all its keys.
    mean = _sum_of_products(d_heads, heads)
    d_probabilities = tf.matmul(d_heads, values, transpose_b=True)
    d_scores = _softmax_backward(probabilities, d_probabilities, mean, _scale(queries))
    d_queries = tf.matmul(d_scores, keys)
    d_keys = tf.matmul(d_scores, queries, transpose_a=True)
    d_values = tf.matmul(probabilities, d_heads, transpose_a=True)
    return tf.concat([_merge(x) for x in (d_queries, d_keys, d_values)], axis=-1)


@_one_kernel
def _sum_of_products(a, b):
    """In at least float32, over the last axis, which stays."""
    return tf.reduce_sum(_at_least_float32(a) * _at_least_float32(b), axis=-1, keepdims=True)


@_one_kernel
def _softmax_backward(probabilities, gradient, mean, scale):
    dtype = probabilities.dtype
    probabilities, gradient, mean, scale = map(
        _at_least_float32, (probabilities, gradient, mean, scale)
    )
    return tf.cast(probabilities * (gradient - mean) * scale, dtype)


def _split(qkv, num_heads):
    """`(B, N, 3 C)` as queries, keys and values `(B, h, N, C / h)`, with one transposition."""
    length, width = size(qkv, 1), qkv.shape[2]
    heads = tf.reshape(qkv, (-1, length, 3, num_heads, width // (3 * num_heads)))
    return tf.unstack(tf.transpose(heads, (2, 0, 3, 1, 4)), 3)


def _heads(x, num_heads):
    """`(B, N, C)` as `(B, h, N, C / h)`."""
    length, width = size(x, 1), x.shape[2]
    heads = tf.reshape(x, (-1, length, num_heads, width // num_heads))
    return tf.transpose(heads, (0, 2, 1, 3))


def _merge(heads):
    """The inverse of `_heads`."""
    _, num_heads, _, width = heads.shape
    shape = (-1, size(heads, 2), num_heads * width)
    if num_heads != 1 and heads.shape[2] != 1:  # OpenVINO errs in transpositions that move nothing
        heads = tf.transpose(heads, (0, 2, 1, 3))
    return tf.reshape(heads, shape)


def _probabilities(queries, keys):
    """The attention map `(B, h, N, N)`; rows sum to 1."""
    return tf.nn.softmax(tf.matmul(queries * _scale(queries), keys, transpose_b=True))


def _scale(queries):
    return tf.constant(queries.shape[-1] ** -0.5, queries.dtype)


def _mean(x):
    """Of each row, `(n, 1)`."""
    return tf.reduce_mean(x, axis=-1, keepdims=True)


def _compiled_mean(x):
    """The same for kernels that XLA compiles.

    On a CPU it sums up a row in several passes, and a product takes half the time.
    """
    if _only_cpus():
        return tf.matmul(x, tf.ones((x.shape[-1], 1), x.dtype)) / x.shape[-1]
    return _mean(x)


def _layer_norm(x, gamma, beta, epsilon, mean=_mean):
    normal, _ = _normalise(_rows(x), epsilon, mean)
    return _unflatten(tf.cast(normal * gamma + beta, x.dtype), x)


def _trained_layer_norm(x, gamma, beta, epsilon):
    @tf.custom_gradient
    def norm(x, gamma, beta):
        def backward(dy):
            return _layer_norm_backward(x, gamma, dy, epsilon)

        return _one_kernel_layer_norm(x, gamma, beta, epsilon), backward

    return norm(x, gamma, beta)


@_one_kernel
def _layer_norm_backward(x, gamma, dy, epsilon):
    normal, inverse = _normalise(_rows(x), epsilon, _compiled_mean)
    dy = _at_least_float32(_rows(dy))
    along = dy * normal
    d_normal = dy * gamma
    # Shifting or scaling all channels of a token changes nothing: remove these components.
    d_normal -= _compiled_mean(d_normal)
    d_normal -= normal * _compiled_mean(along * gamma)
    dx = _unflatten(tf.cast(d_normal * inverse, x.dtype), x)
    return dx, tf.reduce_sum(along, axis=0), tf.reduce_sum(dy, axis=0)


def _normalise(x, epsilon, mean):
    """Rows of mean 0 and variance 1, and the inverse of the standard deviation."""
    x = _at_least_float32(x)
    x -= mean(x)
    inverse = tf.math.rsqrt(mean(tf.square(x)) + epsilon)
    return x * inverse, inverse


_one_kernel_layer_norm = _one_kernel(functools.partial(_layer_norm, mean=_compiled_mean))
_one_kernel_gelu = _one_kernel(lambda x: tf.cast(gelu(_at_least_float32(x)), x.dtype))
