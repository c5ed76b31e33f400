"""What every fusion is: a layer from the tokens of two branches to the tokens of two branches."""

import keras

from keras_crossvit.layers.checks import check_positive_int, check_rate


class Fusion(keras.layers.Layer):
    """Base class of the fusions of section 3.3.

    A subclass implements `build(input_shape)` and `call(tokens, training=False)`, where
    `tokens` is `[small, large]` of shapes `(B, 1 + N_small, C_small)` and
    `(B, 1 + N_large, C_large)`, class token first, and returns the two in the same shapes.
    Add it to the registry with `register_fusion`, and its name is a value of
    `CrossViTConfig.fusion`.

    Args:
        small_num_heads: Attention heads of the small branch.
        large_num_heads: Attention heads of the large branch.
        depth: How many fusion modules follow each other (L of table 1), positive.
        drop_path_rate: Probability that a sample skips a residual path, in [0, 1).
        seed: Integer seed of drop path; `None` takes one from the global Keras seed.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self, small_num_heads, large_num_heads, depth=1, drop_path_rate=0.0, seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.small_num_heads = check_positive_int("small_num_heads", small_num_heads)
        self.large_num_heads = check_positive_int("large_num_heads", large_num_heads)
        self.depth = check_positive_int("depth", depth)
        self.drop_path_rate = check_rate("drop_path_rate", drop_path_rate)
        self.seed = seed

    def compute_output_shape(self, input_shape):
        return [tuple(shape) for shape in input_shape]

    def macs(self, input_shape):
        """Multiply-accumulates for one sample; a fusion that multiplies overrides it."""
        return 0

    def get_config(self):
        return {
            **super().get_config(),
            "small_num_heads": self.small_num_heads,
            "large_num_heads": self.large_num_heads,
            "depth": self.depth,
            "drop_path_rate": self.drop_path_rate,
            "seed": self.seed,
        }


FUSIONS = {}


def register_fusion(name):
    """Class decorator: makes a `Fusion` known as `name`, to `CrossViTConfig` and to Keras.

    Raises:
        ValueError: If another class has that name.
    """

    def register(cls):
        known = FUSIONS.get(name)
        # The same class defined again (a notebook cell run twice) replaces itself.
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"`name` must be new. Received: {name!r}, which is {known.__name__}")
        FUSIONS[name] = keras.saving.register_keras_serializable("keras_crossvit")(cls)
        return FUSIONS[name]

    return register
