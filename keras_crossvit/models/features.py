"""A model's intermediate values, as the outputs of a second model that shares its layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_crossvit.common.checks import did_you_mean
from keras_crossvit.layers import CrossAttentionFusion
from keras_crossvit.layers.intermediates import AttentionRollout, Intermediates, PatchMap
from keras_crossvit.models.crossvit import CrossViT

_TIMM_NUMBERS = {"small": 0, "large": 1}  # of the branches, in timm's and the authors' names
_OTHER = {"small": "large", "large": "small"}


class _Point(NamedTuple):
    """A place in a model.

    Args:
        branch: The branch on whose grid its patches lie.
        stage: Index of the stage that computes it; `None` below and above the stages.
        key: Its name in `Intermediates`, if it has a stage.
        timm: timm's name for the module that returns it, if there is one.
        parts: Names of the points that it is computed from, above the stages.
    """

    branch: str
    stage: int | None = None
    key: str = ""
    timm: str | None = None
    parts: tuple[str, ...] = ()


def branch_logits(model: CrossViT) -> keras.Model:
    """The logits of each branch's own head (table 6, "single branch").

    Args:
        model: A CrossViT built with `include_top=True`, trained or not; it is not changed.

    Returns:
        A model with the input of `model`, the same weights, and the outputs
        `{"small": (B, classes), "large": (B, classes)}`, in float32 where the heads compute in
        half precision.

    Raises:
        ValueError: If `model` does not have two heads.
    """
    branches = model.branches if isinstance(model, CrossViT) else {}
    if "small" not in branches or not model.include_top:
        raise ValueError(
            "`model` must be a CrossViT with include_top=True and two branches. "
            f"Received: {getattr(model, 'name', model)!r}, without a small_head and a large_head"
        )
    heads = {
        branch: _at_least_float32(layers.head.output, f"{branch}_logits")
        for branch, layers in branches.items()
    }
    return keras.Model(model.input, heads, name=f"{model.name}_branches")


def _at_least_float32(tensor, name):
    """The Keras tensor, cast as the model casts its heads' logits if it is in half precision."""
    if tensor.dtype in ("float16", "bfloat16"):
        return keras.layers.Activation("linear", dtype="float32", name=name)(tensor)
    return tensor


def feature_names(model: CrossViT) -> list[str]:
    """The names of the points whose values `feature_model` returns, in the order of computation.

    Below, K is the number of a stage, I that of an encoder in it, both from 0; what is said of
    "small" also holds for "large".

    - "small/patch_embed": the patch embeddings, without a class token.
    - "small/position_embedding": the tokens that enter the first stage.
    - "stage_K/small/block_I": the tokens after an encoder, before the fusion.
    - "stage_K/small/block_I/attention": the encoder's self-attention map.
    - "stage_K/small/cross_attention": how the small branch's class token attends to itself and
      the large branch's patches (A of equation 6); with the cross-attention fusion only.
    - "stage_K/small": the tokens after the fusion.
    - "small/rollout": what each embedding contributes to the class token over all encoders of
      the branch, by attention rollout; only with class tokens.
    - "small/norm": all tokens after the last stage, normalised.

    A model of one branch has "large/block_I" and "large/block_I/attention" in place of stages.

    Args:
        model: A CrossViT.

    Returns:
        The names.

    Raises:
        ValueError: If `model` is not a CrossViT.
    """
    check_crossvit(model)
    return list(_points(model))


def feature_model(model: CrossViT, names: str | Sequence[str], maps: bool = False) -> keras.Model:
    """A model that returns intermediate values of `model`.

    It is a functional Keras model that shares the layers of `model`, which stays as it is. It
    can be trained, saved, loaded and exported. One that is loaded from a file has weights of its
    own, and Keras thaws its frozen layers; where this matters, save `model`.

    A point inside a stage brings all weights of the stage along. Those above the point have no
    gradient, about which Keras warns in training.

    Args:
        model: A CrossViT with any fusion, or a model of one branch, trained or not.
        names: One of `feature_names(model)`, or several. timm's names for the modules are
            allowed too: "blocks.2.blocks.1.0", "norm.1", "patch_embed.0", "blocks.2" for both
            branches after a stage, and "blocks.2.blocks.1.0.attn.attn_drop" for an attention map.
        maps: `False`: tokens are `(B, N, C)`, class token first; self-attention maps
            `(B, h, N, N)`; cross-attention maps `(B, h, 1 + N)` over the class token itself and
            the other branch's patches; rollout `(B, N)`. Rows of attention sum to 1. `True`:
            each is `(B, rows, columns, channels)` on the grid of patches, without the class
            token. The channels of an attention map are its heads, for the class token (averaged
            over all tokens in a model without one); rollout has one channel.

    Returns:
        A model with the input of `model`. Its output is a tensor for one name, and
        `{name: tensor}` with the names as given for several. "blocks.2" is a list of two, which
        `export` refuses alongside other names; it takes "stage_2/small" and "stage_2/large".

    Raises:
        ValueError: If `model` is not a CrossViT, or has no point of that name.
    """
    check_crossvit(model)
    points = _points(model)
    wanted = _resolve(names, model, points)
    tensors = _tensors(model, points, set(keras.tree.flatten(wanted)))
    if maps:
        tensors = {name: _as_map(model, name, points[name], x) for name, x in tensors.items()}
    outputs = keras.tree.map_structure(tensors.get, wanted)
    return keras.Model(model.input, outputs, name=f"{model.name}_features")


def check_crossvit(model: Any) -> None:
    """Raises `ValueError` if `model` is not a `CrossViT`."""
    if not isinstance(model, CrossViT):
        raise ValueError(
            "`model` must be a CrossViT. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )


def _points(model):
    """`{name: _Point}`, in the order of computation."""
    one = len(model.branches) == 1
    numbers = {branch: "" if one else f".{_TIMM_NUMBERS[branch]}" for branch in model.branches}
    points = {}
    for branch, number in numbers.items():
        points[f"{branch}/patch_embed"] = _Point(branch, timm=f"patch_embed{number}")
        points[f"{branch}/position_embedding"] = _Point(branch)
    for index in range(len(model.stages)):
        points.update(_one_branch_points(index) if one else _stage_points(model, index))
    for branch, number in numbers.items():
        below = [name for name, point in points.items() if point.branch == branch]
        maps = tuple(name for name in below if name.endswith("/attention"))
        if model.config.class_token:
            points[f"{branch}/rollout"] = _Point(branch, parts=maps)
        points[f"{branch}/norm"] = _Point(branch, timm=f"norm{number}", parts=(below[-1],))
    return points


def _one_branch_points(index):
    name, timm = f"large/block_{index}", f"blocks.{index}"
    return {
        f"{name}/attention": _Point("large", index, "attention", f"{timm}.attn.attn_drop"),
        name: _Point("large", index, "large", timm),
    }


def _stage_points(model, index):
    points = {}
    for branch, layers in model.branches.items():
        for i in range(len(layers.blocks[index])):
            key = f"{branch}/block_{i}"
            timm = f"blocks.{index}.blocks.{_TIMM_NUMBERS[branch]}.{i}"
            attention = _Point(branch, index, f"{key}/attention", f"{timm}.attn.attn_drop")
            points[f"stage_{index}/{key}/attention"] = attention
            points[f"stage_{index}/{key}"] = _Point(branch, index, key, timm)
    if isinstance(model.stages[index].fuse, CrossAttentionFusion):
        for branch, other in _OTHER.items():
            key = f"{branch}/cross_attention"
            points[f"stage_{index}/{key}"] = _Point(other, index, key)
    for branch in model.branches:
        points[f"stage_{index}/{branch}"] = _Point(branch, index, branch)
    return points


def _resolve(names, model, points):
    """The points' own names in the structure of the output: `{given: name}`, or one name."""
    known = {point.timm: name for name, point in points.items() if point.timm}
    known.update({name: name for name in points})
    if len(model.branches) > 1:
        for index in range(len(model.stages)):
            known[f"blocks.{index}"] = [f"stage_{index}/{branch}" for branch in model.branches]
    given = [names] if isinstance(names, str) else list(names)
    if not given:
        raise ValueError("`names` must hold at least one name. Received: names=[]")
    for name in given:
        if name not in known:
            raise ValueError(
                "`names` must be among feature_names(model), or timm's names of them. "
                f"Received: names={name!r}{did_you_mean(name, known)}"
            )
    return known[names] if isinstance(names, str) else {name: known[name] for name in given}


def _tensors(model, points, wanted):
    """`{name: Keras tensor}` of the points with these names."""
    found = _stage_tensors(model, points, wanted.union(*(points[x].parts for x in wanted)))
    for branch, layers in model.branches.items():
        found[f"{branch}/patch_embed"] = layers.patch_embed.output
        found[f"{branch}/position_embedding"] = layers.position_embedding.output
        if f"{branch}/rollout" in wanted:
            rollout = AttentionRollout(dtype="float32", name=f"{branch}_rollout")
            maps = [found[name] for name in points[f"{branch}/rollout"].parts]
            found[f"{branch}/rollout"] = rollout(maps)
        if f"{branch}/norm" in wanted:
            found[f"{branch}/norm"] = layers.norm(found[points[f"{branch}/norm"].parts[0]])
    return {name: found[name] for name in wanted}


def _stage_tensors(model, points, wanted):
    """Those of `wanted` that the stages compute.

    From the first stage from which more is wanted than it returns, stages are called again. Each
    is then in the new graph just once, either itself or inside `Intermediates`.
    """
    found, tokens, called = {}, model.stages[0].input, False
    asked = [
        {point.key: name for name, point in points.items() if point.stage == k and name in wanted}
        for k in range(len(model.stages))
    ]
    while asked and not asked[-1]:  # nothing above is wanted
        asked.pop()
    ends = set(model.branches)
    for stage, keys in zip(model.stages, asked, strict=False):
        if set(keys) - ends:
            wanted_keys = sorted(set(keys) | (set() if keys is asked[-1] else ends))
            layer = Intermediates(
                stage,
                wanted_keys,
                dtype=stage.dtype_policy,
                name=f"{stage.name}_intermediates",
            )
            values, called = layer(tokens), True
        else:
            after = stage(tokens) if called else stage.output
            values = dict(zip(model.branches, keras.tree.flatten(after), strict=True))
        found.update({name: values[key] for key, name in keys.items()})
        tokens = [values.get(branch) for branch in model.branches]
        tokens = tokens if len(tokens) > 1 else tokens[0]
    return found


def _as_map(model, name, point, tensor):
    """The Keras tensor of a point as `(B, rows, columns, channels)`."""
    class_token, label = model.config.class_token, name.replace("/", "_")
    if name.endswith("/patch_embed"):
        class_token = False
    if name.endswith(("/cross_attention", "/rollout")):
        # One row of attention per head, which begins with the token that attends.
        shape = (*tensor.shape[1:-1], 1, tensor.shape[-1])
        shape = shape if len(shape) == 3 else (1, *shape)
        rows = keras.layers.Reshape(shape, dtype=tensor.dtype, name=f"{label}_rows")
        tensor = rows(tensor)
        class_token = True
    arrange = PatchMap(
        *model.grids[point.branch], class_token, dtype=tensor.dtype, name=f"{label}_map"
    )
    return arrange(tensor)
