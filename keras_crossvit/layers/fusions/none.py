"""No fusion: the first row of table 6."""

from keras_crossvit.layers.fusions.base import Fusion, register_fusion


@register_fusion("none")
class NoFusion(Fusion):
    """The branches stay apart and meet in the mean of their logits (table 6, "None").

    Args and call arguments: as in `Fusion`; `depth` must be 1.
    """

    stackable = False

    def call(self, tokens, training=False):
        return list(tokens)
