"""Class token, position embedding (first line of equation 1) and pooling."""

from typing import Any

import keras
from keras import ops

from keras_crossvit.common.checks import check_choice
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.parts import normal_init, tokens_spec


@keras.saving.register_keras_serializable(package="keras_crossvit")
class ClassToken(keras.layers.Layer):
    """Prepends a learned class token to the patch tokens, `[x_cls || x_patch]` of equation 1.

    Call arguments:
        tokens: `(B, N, C)`.

    Returns:
        `(B, 1 + N, C)`.

    Raises:
        ValueError: If the tokens have another shape, or another width than before.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_spec = tokens_spec()

    def build(self, input_shape: Shape) -> None:
        self.input_spec = tokens_spec(input_shape[-1])
        self.token = self.add_weight(
            shape=(1, 1, input_shape[-1]), initializer=normal_init(), name="token"
        )

    def call(self, tokens: Tensor) -> Tensor:
        batch, _, width = ops.shape(tokens)
        token = ops.cast(self.token, self.compute_dtype)
        return ops.concatenate([ops.broadcast_to(token, (batch, 1, width)), tokens], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, length, width = input_shape
        return (batch, None if length is None else 1 + length, width)


@keras.saving.register_keras_serializable(package="keras_crossvit")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned embedding to each token, including the class token: `x_pos`, equation 1.

    Call arguments:
        tokens: `(B, N, C)` with known N.

    Returns:
        `(B, N, C)`.

    Raises:
        ValueError: If the tokens have another shape, number or width than those before.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_spec = tokens_spec()

    def build(self, input_shape: Shape) -> None:
        if None in input_shape[1:]:
            raise ValueError(
                "PositionEmbedding needs a known number of tokens. "
                f"Received: input_shape={input_shape}"
            )
        self.input_spec = tokens_spec(*input_shape[1:])
        self.embedding = self.add_weight(
            shape=(1, *input_shape[1:]), initializer=normal_init(), name="embedding"
        )

    def call(self, tokens: Tensor) -> Tensor:
        return tokens + ops.cast(self.embedding, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(package="keras_crossvit")
class TokenPool(keras.layers.Layer):
    """Pools the tokens of a branch to one vector.

    Args:
        mode: `"token"` returns the class token; `"avg"` and `"max"` pool the patch tokens.
        class_token: Whether the first token is a class token.

    Call arguments:
        tokens: `(B, N, C)`.

    Returns:
        `(B, C)`.

    Raises:
        ValueError: If `mode` is not one of the three, or is `"token"` without a class token.
    """

    def __init__(self, mode: str, class_token: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        allowed = {"token", "avg", "max"} if class_token else {"avg", "max"}
        self.mode = check_choice("mode", mode, allowed)
        self.class_token = class_token
        self.input_spec = tokens_spec()

    def call(self, tokens: Tensor) -> Tensor:
        if self.mode == "token":
            return tokens[:, 0]
        patches = tokens[:, 1:] if self.class_token else tokens
        return ops.mean(patches, axis=1) if self.mode == "avg" else ops.max(patches, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode, "class_token": self.class_token}
