"""The model card: what is known of a model, and how to use it."""

import logging
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_crossvit.common.files import write_text
from keras_crossvit.models.presets import preset_name
from keras_crossvit.models.space import space_front_matter
from keras_crossvit.models.timm_config import is_of_timm

if TYPE_CHECKING:
    from keras_crossvit.models.crossvit import CrossViT

_WHAT = "A CrossViT (Chen, Fan and Panda, ICCV 2021)."  # by which a card is known as ours
_logger = logging.getLogger("keras_crossvit")


def write_card(
    path: pathlib.Path,
    model: "CrossViT",
    crop_ratio: float,
    architecture: str,
    details: Mapping[str, Any],
    space: bool,
) -> None:
    """Writes the card, unless there is a file that is no such card, which is logged.

    Args:
        path: The file.
        model: The model.
        crop_ratio: That of its evaluation.
        architecture: What timm calls the architecture, or would.
        details: Further rows.
        space: Whether it is a Space's.
    """
    if path.is_file() and not is_card(path):
        _logger.warning("%s is no model card of this package, and stays as it is", path)
        return
    write_text(path, _card(model, crop_ratio, architecture, details, space))


def is_card(path: pathlib.Path) -> bool:
    """Whether a file is a model card of this package."""
    return _WHAT in path.read_text(encoding="utf-8", errors="replace")


def _card(model, crop_ratio, architecture, details, space):
    height, width, channels = model.images["large"].shape[1:]
    pixels = "pixels in 0..255" if model.include_preprocessing else "pixels normalised beforehand"
    facts = {
        "architecture": preset_name(model.config) or "a CrossViT of one's own (config.json)",
        "parameters": f"{model.count_params():,}",
        "images": f"{height} x {width}, {channels} channels, {pixels}, centre crop {crop_ratio:g}",
        "classes": model.classes if model.include_top else "none (features)",
        "timm": architecture if is_of_timm(architecture) else "no architecture is the same",
        **details,
    }
    tags = ["keras_crossvit", "crossvit", *(["timm"] if is_of_timm(architecture) else [])]
    lines = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items())
    front_matter = (
        f"library_name: keras\npipeline_tag: image-classification\ntags: [{', '.join(tags)}]\n"
    )
    if space:
        front_matter = space_front_matter(model.name)
    return (
        f"---\n{front_matter}---\n"
        f"# {model.name}\n\n{_WHAT}\n\n"
        f"| what | value |\n| --- | --- |\n{lines}\n\n"
        "```python\nimport keras_crossvit as kc\n\n"
        'model = kc.from_pretrained("FOLDER or hf://OWNER/NAME")\n```\n\n'
        "The license of the weights is that of what they were trained from, and is for their "
        "owner to state here.\n"
    )


def _cell(value):
    """What can stand in a row of Markdown's tables."""
    return " ".join(str(value).splitlines()).replace("|", "\\|")
