"""What every fusion is: a layer from the tokens of two branches to the tokens of two branches."""

import math

import keras

from keras_crossvit.common.checks import check_grid, check_positive_int, check_rate
from keras_crossvit.common.registry import PACKAGE, Registry


class Fusion(keras.layers.Layer):
    """Base class of the fusions of section 3.3.

    A subclass implements `build(input_shape)` and `call(tokens, training=False)`, where
    `tokens` is `[small, large]` of shapes `(B, 1 + N_small, C_small)` and
    `(B, 1 + N_large, C_large)`, class token first, and returns the two in the same shapes.
    Add it to the registry with `register_fusion`, and its name is a value of
    `CrossViTConfig.fusion`. All arguments below are attributes that it may use or not.

    Args:
        small_num_heads: Attention heads of the small branch.
        large_num_heads: Attention heads of the large branch.
        depth: How many fusion modules follow each other (L of table 1), positive; 1 for a
            fusion whose class says `stackable = False`.
        drop_path_rate: Probability that a sample skips a residual path, in [0, 1).
        seed: Integer seed of drop path; `None` takes one from the global Keras seed.
        class_token: Whether the first token of each branch is a class token; `False`: the
            shapes are `(B, N_small, C_small)` and `(B, N_large, C_large)`. True for a fusion
            whose class says `needs_class_token = True`.
        small_grid: `(rows, columns)` of the small branch's patches; `None` if not known.
        large_grid: `(rows, columns)` of the large branch's patches; `None` if not known.

    Raises:
        ValueError: If an argument is outside its range.
    """

    stackable = True
    needs_class_token = False

    def __init__(
        self,
        small_num_heads,
        large_num_heads,
        depth=1,
        drop_path_rate=0.0,
        seed=None,
        class_token=True,
        small_grid=None,
        large_grid=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.small_num_heads = check_positive_int("small_num_heads", small_num_heads)
        self.large_num_heads = check_positive_int("large_num_heads", large_num_heads)
        self.depth = self._check_depth(depth)
        self.drop_path_rate = check_rate("drop_path_rate", drop_path_rate)
        self.seed = seed
        self.class_token = self._check_class_token(class_token)
        self.small_grid = check_grid("small_grid", small_grid)
        self.large_grid = check_grid("large_grid", large_grid)

    def _check_depth(self, depth):
        check_positive_int("depth", depth)
        if depth > 1 and not self.stackable:
            raise ValueError(
                f"`depth` (a configuration's `fusion_depth`) must be 1 for {type(self).__name__}, "
                f"which does not stack. Received: depth={depth}"
            )
        return depth

    def _check_class_token(self, class_token):
        if self.needs_class_token and not class_token:
            raise ValueError(
                f"`class_token` must be True for {type(self).__name__}, which fuses class tokens. "
                f"Received: class_token={class_token}"
            )
        return class_token

    @property
    def attentions(self):
        """The attention layers of a built fusion; overridden by a fusion that has some."""
        return []

    def patch_grids(self, input_shape):
        """The grids of both branches' patches, for a fusion that needs to know who sits where.

        A grid that was not given is taken to be square.

        Args:
            input_shape: As in `build`.

        Returns:
            `[(rows, columns), (rows, columns)]`, small branch first.

        Raises:
            ValueError: If a grid does not hold the branch's number of patches, or was not
                given and is not square.
        """
        grids = []
        for name, shape in zip(("small_grid", "large_grid"), input_shape, strict=True):
            patches = shape[1] - self.class_token
            side = math.isqrt(patches)
            rows, columns = getattr(self, name) or (side, side)
            if rows * columns != patches:
                raise ValueError(
                    f"`{name}` must be (rows, columns) of {patches} patches, as the tokens "
                    f"have; None stands for a square. Received: {name}={getattr(self, name)}"
                )
            grids.append((rows, columns))
        return grids

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
            "class_token": self.class_token,
            "small_grid": self.small_grid,
            "large_grid": self.large_grid,
        }


FUSIONS = Registry("fusion")


def register_fusion(name):
    """Class decorator that enters a `Fusion` under `name`, as a value of `fusion`.

    The class is also registered with Keras, so that models with it can be saved and loaded.

    Args:
        name: What `CrossViTConfig.fusion` calls it.

    Raises:
        ValueError: If another class has that name.
    """

    def enter(cls):
        return FUSIONS.register(name)(keras.saving.register_keras_serializable(PACKAGE)(cls))

    return enter
