"""The formulas of the paper in NumPy, float64, written without looking at the package."""

import math

import keras
import numpy as np

_erf = np.vectorize(math.erf, otypes=["float64"])


def arrays(layer):
    """`{path below the layer: float64 array}` of all weights of a layer."""
    return {
        variable.path.split("/", 1)[1]: keras.ops.convert_to_numpy(variable).astype("float64")
        for variable in layer.weights
    }


def randomize(layer, seed=0, scale=0.5):
    """Gives every weight noise, so that no bias or gain hides at 0 or 1; returns the layer."""
    random = np.random.default_rng(seed)
    for variable in layer.weights:
        if keras.backend.is_float_dtype(variable.dtype):
            mean = 1.0 if variable.path.endswith("gamma") else 0.0
            variable.assign(mean + scale * random.standard_normal(tuple(variable.shape)))
    return layer


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def gelu(x):
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def linear(x, w, name):
    return x @ w[f"{name}/kernel"] + w.get(f"{name}/bias", 0.0)


def layer_norm(x, w, name):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * w[f"{name}/gamma"] + w[f"{name}/beta"]


def below(w, prefix):
    """The weights of a part, by their paths below it."""
    return {k.removeprefix(f"{prefix}/"): v for k, v in w.items() if k.startswith(f"{prefix}/")}


def attention(queries, keys, values, num_heads):
    """softmax(q k^T / sqrt(C/h)) v, equation 6, one head after the other, `(B, n, C)`."""
    heads = []
    for q, k, v in zip(
        *(np.split(x, num_heads, axis=-1) for x in (queries, keys, values)), strict=True
    ):
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        heads.append(softmax(scores) @ v)
    return np.concatenate(heads, axis=-1)


def self_attention(x, w, num_heads):
    return linear(attention(*np.split(linear(x, w, "qkv"), 3, axis=-1), num_heads), w, "proj")


def cross_attention(x, w, num_heads):
    """Equation 6 as it is written: keys and values of all tokens, the query of the first."""
    query = linear(x[:, :1], w, "query")
    attended = attention(query, linear(x, w, "key"), linear(x, w, "value"), num_heads)
    return linear(attended, w, "proj")


def mlp(x, w):
    return linear(gelu(linear(x, w, "fc1")), w, "fc2")


def transformer_block(x, w, num_heads):
    """Equation 1, second and third lines."""
    x = x + self_attention(layer_norm(x, w, "norm1"), below(w, "attention"), num_heads)
    return x + mlp(layer_norm(x, w, "norm2"), below(w, "mlp"))


def projection(x, w):
    """The projections f and g of equation 5, as the released code has them."""
    return linear(gelu(layer_norm(x, w, "norm")), w, "dense")


def cross_attention_block(x, w, num_heads):
    """Equation 7 for the query token alone."""
    attended = cross_attention(layer_norm(x, w, "norm"), below(w, "attention"), num_heads)
    return x[:, :1] + attended


def fused_class_token(own, other, w, branch, other_heads):
    """Equations 5 and 7: the new class token of `branch`, `(B, 1, C)`."""
    projected = projection(own[:, :1], below(w, f"{branch}_projection"))
    joined = np.concatenate([projected, other[:, 1:]], axis=1)
    attended = cross_attention_block(joined, below(w, f"{branch}_block"), other_heads)
    return projection(attended, below(w, f"{branch}_back_projection"))


def cubic_resize_row(row, size):
    """One row of samples resized: a = -0.75, half-pixel centres, edges repeated."""
    a = -0.75

    def kernel(t):
        t = abs(t)
        if t < 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    resized = []
    for i in range(size):
        x = (i + 0.5) * len(row) / size - 0.5
        taps = range(math.floor(x) - 1, math.floor(x) + 3)
        resized.append(sum(kernel(x - j) * row[min(max(j, 0), len(row) - 1)] for j in taps))
    return np.array(resized)


def cubic_resize(image, height, width):
    """`(H, W, C)` resized along one axis, then the other."""
    image = np.apply_along_axis(cubic_resize_row, 0, image.astype("float64"), height)
    return np.apply_along_axis(cubic_resize_row, 1, image, width)


def gradient_norms(layer, x, **kwargs):
    """`{path: Euclidean norm}` of the gradient of the sum of squares; None where there is none.

    TensorFlow's tape, since Keras has no gradient of its own.
    """
    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(layer(x, **kwargs))
        loss = sum(keras.ops.sum(keras.ops.square(output)) for output in outputs)
    variables = [variable.value for variable in layer.trainable_weights]
    gradients = zip(layer.trainable_weights, tape.gradient(loss, variables), strict=True)
    return {v.path: None if g is None else float(tf.norm(g)) for v, g in gradients}
