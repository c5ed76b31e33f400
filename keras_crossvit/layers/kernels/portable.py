"""What every backend can do: the definitions that the other module is tested against."""

from keras import ops

from keras_crossvit.layers.activations import gelu


def dense(x, kernel, bias=None):
    """`x @ kernel + bias`.

    Args:
        x: `(..., C)`.
        kernel: `(C, D)`.
        bias: `(D,)`, or `None`.

    Returns:
        `(..., D)`.
    """
    y = ops.matmul(x, kernel)
    return y if bias is None else y + bias


def mlp(x, kernel_1, bias_1, kernel_2, bias_2, training=False):
    """Linear, exact GELU, linear.

    Args:
        x: `(..., C)`.
        kernel_1: `(C, D)`.
        bias_1: `(D,)`.
        kernel_2: `(D, E)`.
        bias_2: `(E,)`.
        training: Whether a backward pass will follow.

    Returns:
        `(..., E)`.
    """
    del training
    return dense(gelu(dense(x, kernel_1, bias_1)), kernel_2, bias_2)


def attention(qkv, num_heads, training=False):
    """Softmax attention, each head on its own.

    Args:
        qkv: `(B, N, 3 C)`: queries, keys and values, in this order, each split into heads.
        num_heads: Number of heads h, a divisor of C.
        training: Whether a backward pass will follow.

    Returns:
        `(B, N, C)`, the heads side by side.
    """
    del training
    batch, length, width = ops.shape(qkv)
    heads = ops.reshape(qkv, (batch, length, 3, num_heads, width // (3 * num_heads)))
    merged = ops.dot_product_attention(*(heads[:, :, index] for index in range(3)))
    return ops.reshape(merged, (batch, length, width // 3))


def layer_norm(x, gamma, beta, epsilon, training=False):
    """Layer normalisation over the last axis, computed in float32 at least.

    Args:
        x: `(..., C)`.
        gamma: `(C,)`, of the dtype to compute in.
        beta: `(C,)`, likewise.
        epsilon: What is added to the variance.
        training: Whether a backward pass will follow.

    Returns:
        `(..., C)`, of the dtype of `x`.
    """
    del training
    return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)
