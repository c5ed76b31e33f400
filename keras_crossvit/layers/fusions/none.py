"""No fusion: the first row of table 6."""

from keras_crossvit.common.typing import Tensor
from keras_crossvit.layers.fusions.base import Fusion, register_fusion


@register_fusion("none")
class NoFusion(Fusion):
    """The branches stay separate; only their logits are averaged (table 6, "None").

    Args and call arguments: as in `Fusion`; `depth` must be 1.
    """

    stackable = False

    def call(self, tokens: list[Tensor], training: bool = False) -> list[Tensor]:
        return list(tokens)
