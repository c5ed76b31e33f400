"""The one name table: Keras variables and the names that timm and the authors give them.

timm and the authors agree but for `pos_embed_0` and `cls_token_0`, which the authors write
`pos_embed.0` and `cls_token.0`. Branch 0 is the small one, branch 1 the large one. A model of
one branch, timm's `deit_*`, has the same names without the branch. What timm does not have
(all-attention, the T2T module) has names in its style.
"""

import re

import numpy as np

# (pattern of a variable's path, timm's name). <b> in a pattern is the branch; the named
# groups of a match fill the braces, each through the words below where it has an entry.
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
    # Positions inside PyTorch's Sequential; the odd ones are ReLU and GELU.
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


def timm_name(path, one_branch=False):
    """The name in timm of the variable with this path, or None if the table has no such path.

    Args:
        path: `variable.path`.
        one_branch: Whether the model has the large branch alone.
    """
    for pattern, name in _COMPILED:
        if match := pattern.fullmatch(path):
            if one_branch:
                name = name.replace(".{b}", "").replace("_{b}", "")
            groups = match.groupdict()
            return name.format(**{g: _WORDS.get(g, {}).get(v, v) for g, v in groups.items()})
    return None


def named_variables(model):
    """All weights of `model` under timm's names.

    Returns:
        `{name: variable}`, in the model's order.

    Raises:
        ValueError: If `model` is no CrossViT, or naming each variable that has no such name, or
            shares one.
    """
    branches = getattr(model, "branches", None)
    if branches is None:
        raise ValueError(
            "`model` must be a CrossViT of this package. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    one_branch = "small" not in branches
    named, foreign = {}, []
    for variable in model.weights:
        name = timm_name(variable.path, one_branch)
        if name is None or name in named:
            foreign.append(variable.path)
        else:
            named[name] = variable
    if foreign:
        raise ValueError(
            "`model` must be a CrossViT of this package, not quantised and without LoRA, so that "
            "each variable has one name in the published checkpoints. Received: "
            f"{len(foreign)} variables without one: {shorten(foreign)}"
        )
    return named


def from_torch(array):
    """An array in PyTorch's layout, `(out, in)` or `(out, in, rows, columns)`, in Keras'."""
    return array.transpose({2: (1, 0), 4: (2, 3, 1, 0)}.get(array.ndim, range(array.ndim)))


def to_torch(array):
    """The inverse of `from_torch`, contiguous."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim, range(array.ndim))
    return np.ascontiguousarray(array.transpose(axes))


def shorten(names, limit=6):
    """The first names of a list, for an error message."""
    names = list(names)
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
