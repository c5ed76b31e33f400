"""The table of names: Keras variables and their names in the checkpoints.

timm and the authors use the same names, except that the authors write `pos_embed_0` and
`cls_token_0` as `pos_embed.0` and `cls_token.0`. Branch 0 is the small branch, branch 1 the large
one. A model of one branch, timm's `deit_*`, has the same names without the branch. Parts that timm
does not have (all-attention, the T2T module) have names in the same style, and so do a fusion
and a patch embedding of one's own, by the names of their layers.
"""

import re
from collections.abc import Iterable

import keras
import numpy as np

# (pattern of a variable's path, timm's name). <b> is the branch. Each <group> matches one of its
# keys in `_WORDS`, or a number; the value there, or the number, fills the braces of that name.
_TABLE = (
    ("<b>_patch_embed/proj/<leaf>", "patch_embed.{b}.proj.{leaf}"),
    ("<b>_patch_embed/conv_<conv>/<leaf>", "patch_embed.{b}.proj.{conv}.{leaf}"),
    ("<b>_patch_embed/project/<leaf>", "patch_embed.{b}.project.{leaf}"),
    ("<b>_patch_embed/attention<n>/random_features", "patch_embed.{b}.attention{n}.w"),
    ("<b>_patch_embed/attention<n>/<part>/<leaf>", "patch_embed.{b}.attention{n}.{part}.{leaf}"),
    ("<b>_class_token/token", "cls_token_{b}"),
    ("<b>_position_embedding/embedding", "pos_embed_{b}"),
    ("<b>_block_<i>/<part>/<leaf>", "blocks.{b}.{i}.{part}.{leaf}"),
    ("stage_<k>/<b>_block_<i>/<part>/<leaf>", "blocks.{k}.blocks.{b}.{i}.{part}.{leaf}"),
    ("stage_<k>/fusion/<b>_projection/<step>/<leaf>", "blocks.{k}.projs.{b}.{step}.{leaf}"),
    ("stage_<k>/fusion/<b>_block/<part>/<leaf>", "blocks.{k}.fusion.{b}.{part}.{leaf}"),
    ("stage_<k>/fusion/<b>_block_<i>/<part>/<leaf>", "blocks.{k}.fusion.{b}.{i}.{part}.{leaf}"),
    ("stage_<k>/fusion/<part>/<leaf>", "blocks.{k}.fusion.{part}.{leaf}"),
    (
        "stage_<k>/fusion/<b>_back_projection/<step>/<leaf>",
        "blocks.{k}.revert_projs.{b}.{step}.{leaf}",
    ),
    ("<b>_norm/<leaf>", "norm.{b}.{leaf}"),
    ("<b>_head/<leaf>", "head.{b}.{leaf}"),
)
_WORDS = {
    "b": {"small": "0", "large": "1"},
    # Positions in PyTorch's Sequential, where ReLU and GELU have the odd ones.
    "conv": {"0": "0", "1": "2", "2": "4"},
    "step": {"norm": "0", "dense": "2"},
    "leaf": {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"},
    "part": {
        "norm": "norm1",
        "norm1": "norm1",
        "norm2": "norm2",
        "attention/qkv": "attn.qkv",
        "attention/query": "attn.wq",
        "attention/key": "attn.wk",
        "attention/value": "attn.wv",
        "attention/proj": "attn.proj",
        "mlp/fc1": "mlp.fc1",
        "mlp/fc2": "mlp.fc2",
        "kqv": "kqv",
        "qkv": "qkv",
        "proj": "proj",
    },
}


def _compile(pattern):
    def group(match):
        name = match.group(1)
        words = sorted(_WORDS[name], key=len, reverse=True) if name in _WORDS else [r"\d+"]
        return f"(?P<{name}>{'|'.join(words)})"

    return re.compile(re.sub(r"<(\w+)>", group, pattern))


_COMPILED = tuple((_compile(pattern), name) for pattern, name in _TABLE)


def timm_name(path: str, one_branch: bool = False) -> str | None:
    """The name in timm of the variable with this path, or None if the table has no such path.

    Args:
        path: `variable.path`.
        one_branch: Whether the model has only the large branch.
    """
    for pattern, name in _COMPILED:
        if match := pattern.fullmatch(path):
            if one_branch:
                name = name.replace(".{b}", "").replace("_{b}", "")
            groups = match.groupdict()
            return name.format(**{g: _WORDS.get(g, {}).get(v, v) for g, v in groups.items()})
    return None


def name_scope(model: keras.Model) -> str:
    """What all paths of a CrossViT begin with if it was made in a name scope, as by a layer."""
    first = model.branches["large"].patch_embed
    return first.path.removesuffix(first.name)


def path_in(model: keras.Model, layer: keras.layers.Layer) -> str:
    """A layer's path within a CrossViT; a layer without weights may have none, an empty one."""
    return (layer.path or "").removeprefix(name_scope(model))


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All variables of `model`, trainable or not, under timm's names.

    Returns:
        `{name: variable}`, in the model's order.

    Raises:
        ValueError: If `model` is not a CrossViT, or a variable has no such name or shares it with
            another; the message names these variables.
    """
    branches = getattr(model, "branches", None)
    if branches is None:
        raise ValueError(
            "`model` must be a CrossViT of this package. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    one_branch = "small" not in branches
    scope = name_scope(model)
    own = {}
    for prefix, part in _own_parts(model):
        own.update(_names_in(part, prefix, scope, one_branch))
    named, foreign = {}, []
    for variable in model.weights:
        name = timm_name(variable.path.removeprefix(scope), one_branch)
        name = own.get(id(variable), name)
        if name is None or name in named:
            foreign.append(variable.path)
        else:
            named[name] = variable
    if foreign:
        raise ValueError(
            "`model` must be a CrossViT, not quantised and without LoRA, so that each variable "
            "has one name in the published checkpoints; model.save writes the others too. "
            f"Received: {len(foreign)} variables without one: {shorten(foreign)}"
        )
    return named


def _own_parts(model):
    """`(what their names begin with, layer)` of fusions and patch embeddings of one's own."""
    numbers = _WORDS["b"] if "small" in model.branches else {"large": ""}
    parts = [
        (f"patch_embed.{numbers[branch]}".rstrip("."), layers.patch_embed)
        for branch, layers in model.branches.items()
    ]
    parts += [
        (f"blocks.{number}.fusion", stage.fuse)
        for number, stage in enumerate(model.stages)
        if hasattr(stage, "fuse")
    ]
    package = __name__.partition(".")[0]
    return [
        (prefix, part)
        for prefix, part in parts
        if type(part).__module__.partition(".")[0] != package
    ]


def _names_in(part, prefix, scope, one_branch):
    """Names of the variables of a part of one's own: `{id(variable): name or None}`.

    Those in the table have the names there, as in a part that extends one of this package.
    Others have the names of the layers, of which Keras numbers those that were given none, for
    the whole process; so numbers at the end count anew, in the order of the weights.
    """
    names = [timm_name(v.path.removeprefix(scope), one_branch) for v in part.weights]
    if len(set(names) - {None}) < len(names) - names.count(None):  # as of layers norm and norm1
        names = [None] * len(names)
    paths = {variable.path for variable in part.weights}
    counted: dict[tuple[str, ...], dict[str, int]] = {}
    for number, variable in enumerate(part.weights):
        if names[number] is None and not _is_added(variable.path, paths):
            *layers, leaf = variable.path.removeprefix(f"{part.path}/").split("/")
            steps = [prefix]
            for word in (*layers, _WORDS["leaf"].get(leaf, leaf)):
                plain = re.sub(r"_\d+$", "", word)
                alike = counted.setdefault((*steps, plain), {})
                count = alike.setdefault(word, len(alike))
                steps.append(f"{plain}_{count}" if count else plain)
            names[number] = ".".join(steps)
    return dict(zip(map(id, part.weights), names, strict=True))


def _is_added(path, paths):
    """Whether LoRA or quantisation has added a variable, which has no name."""
    leaf = path.rpartition("/")[2]
    return leaf.startswith("lora_") or (
        leaf.endswith("_scale") and path.removesuffix("_scale") in paths
    )


def from_torch(array: np.ndarray) -> np.ndarray:
    """Transposes an array from PyTorch's layout, `(out, in[, rows, columns])`, to Keras'."""
    return array.transpose({2: (1, 0), 4: (2, 3, 1, 0)}.get(array.ndim, range(array.ndim)))


def to_torch(array: np.ndarray) -> np.ndarray:
    """The inverse of `from_torch`; the result is contiguous."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim, range(array.ndim))
    return np.asarray(array.transpose(axes), order="C")


def shorten(names: Iterable[str], limit: int = 6) -> str:
    """The first `limit` names and how many more there are, for an error message."""
    names = list(names)
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
