"""Figure 1 of the paper, accuracy against cost, and the speeds drawn in it."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from benchmarks.turns import median, noise, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FAMILIES = {  # how the names of a family begin -> what it is called, its colour
    "crossvit": ("CrossViT", "tab:red"),
    "deit": ("DeiT", "tab:blue"),
    "ResNet": ("ResNet", "tab:gray"),
    "EfficientNet": ("EfficientNet", "tab:green"),
}
_OTHER = ("other", "tab:orange")
_AREA = 6.0  # points^2 of a circle per million parameters


def measure_inference(
    models: Mapping[str, keras.Model], batch_size: int, repeats: int = 7
) -> dict[str, dict[str, Any]]:
    """Images per second of `predict_on_batch` of several models, batch by batch in turn.

    Turns make the models comparable on a machine that has other work as well: what slows one
    of them down slows them all. All of them are in memory together.

    Args:
        models: `{name: model}`, each with a fixed input size.
        batch_size: Images in a batch.
        repeats: Timed batches of each model, after one that is not timed.

    Returns:
        `{name: {"images_per_second": median, "spread": (lowest, highest), "batch_size": ...}}`.
    """
    images = {name: noise(batch_size, x.input_shape[1:3])[0] for name, x in models.items()}
    rates = {name: [] for name in models}
    for turn in range(1 + repeats):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict_on_batch(images[name])
            if turn > 0:  # the first one traces the graph
                rates[name].append(batch_size / (time.perf_counter() - start))
    return {
        name: {
            "images_per_second": median(found, 2),
            "spread": spread(found, 2),
            "batch_size": batch_size,
        }
        for name, found in rates.items()
    }


def plot_speed(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> "Figure":
    """Draws the paper's accuracy against GMACs (its figure 1) and against measured speed.

    Each model is a circle whose area is proportional to its number of parameters; the line
    through it spans the lowest and the highest measured speed.

    Args:
        rows: A dictionary for each model: `model` (name), `top1` (%), `macs`, `parameters`,
            `images_per_second` and `spread`. Rows whose `top1` is `None` are left out.
        path: The PNG file to write.

    Returns:
        The matplotlib `Figure`.

    Raises:
        ValueError: If no row has a `top1`.
    """
    from matplotlib.figure import Figure  # not pyplot, which would need a display
    from matplotlib.ticker import LogLocator, NullLocator

    rows = [row for row in rows if row["top1"] is not None]
    if not rows:
        raise ValueError(
            "`rows` must hold a model whose accuracy the paper gives. Received: none of those"
        )
    figure = Figure(figsize=(11, 5), layout="constrained")
    by_cost, by_speed = figure.subplots(1, 2, sharey=True)
    _draw_models(by_cost, by_speed, rows)
    by_cost.set(xlabel="GMACs", ylabel="top-1 on ImageNet, % (the paper's)", xscale="log")
    by_speed.set(xlabel="images/s, measured on this machine", xscale="log")
    for axis in (by_cost, by_speed):
        axis.grid(alpha=0.3, which="both")
        axis.margins(0.25, 0.1)  # room for the names
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")
    for name, colour in dict.fromkeys(_family(row["model"]) for row in rows):
        by_cost.scatter([], [], color=colour, alpha=0.5, label=name)
    by_cost.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    return figure


def _draw_models(by_cost, by_speed, rows):
    for row in rows:
        _, colour = _family(row["model"])
        speed, (lowest, highest) = row["images_per_second"], row["spread"]
        by_speed.plot([lowest, highest], [row["top1"]] * 2, color=colour, linewidth=1)
        for axis, x in ((by_cost, row["macs"] / 1e9), (by_speed, speed)):
            size = _AREA * row["parameters"] / 1e6
            axis.scatter(x, row["top1"], s=size, color=colour, alpha=0.5, linewidths=0)
            # The names of CrossViTs go on the right: their neighbours are from other families.
            side = 1 if row["model"].startswith("crossvit") else -1
            axis.annotate(
                row["model"],
                (x, row["top1"]),
                xytext=(side * (size**0.5 / 2 + 2), 0),
                textcoords="offset points",
                fontsize=7,
                ha="left" if side > 0 else "right",
                va="center",
            )


def _family(name):
    return next((family for start, family in _FAMILIES.items() if name.startswith(start)), _OTHER)
