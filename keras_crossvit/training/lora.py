"""LoRA on the attention projections, by Keras' own `Dense.enable_lora`."""

from keras_crossvit.layers import CrossAttention, SelfAttention


def enable_attention_lora(model, rank):
    """Trains low-rank changes of the attention projections, the norms and the heads alone.

    Args:
        model: A built CrossViT.
        rank: Rank of the changes, positive.
    """
    for layer in _attentions(model):
        for projection in _projections(layer):
            projection.enable_lora(rank)
    for variable in model.trainable_variables:
        parts = variable.path.split("/")
        trained = "norm" in parts[-2] or parts[0].endswith("_head") or "lora" in parts[-1]
        variable.trainable = trained


def copy_weights(source, target):
    """Copies the weights of a model, LoRA's product merged, to the same one without LoRA."""
    values = {variable.path: variable for variable in source.weights}
    for layer in _attentions(source):
        for projection in _projections(layer):
            values[projection._kernel.path] = projection.kernel
    for variable in target.weights:
        variable.assign(values[variable.path])


def _attentions(model):
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, (SelfAttention, CrossAttention))]


def _projections(layer):
    if isinstance(layer, SelfAttention):
        return layer.qkv, layer.proj
    return layer.query, layer.key, layer.value, layer.proj
