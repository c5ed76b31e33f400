"""Figure 1 of the paper: accuracy against cost."""

_FAMILIES = {  # how the names of a family begin -> its name and colour
    "crossvit": ("CrossViT", "tab:red"),
    "deit": ("DeiT", "tab:blue"),
    "ResNet": ("ResNet", "tab:gray"),
    "EfficientNet": ("EfficientNet", "tab:green"),
}
_OTHER = ("other", "tab:orange")
_AREA = 6.0  # points^2 of a circle per million parameters


def plot_speed(rows, path):
    """Draws the paper's accuracy against GMACs (its figure 1) and against measured speed.

    A circle a model, its area in proportion to the parameters; the bars beside it are the
    lowest and the highest speed that were measured.

    Args:
        rows: Dictionaries with `model` (name), `top1` (%), `macs`, `parameters`,
            `images_per_second` and `spread`. Rows whose `top1` is `None` are left out.
        path: The PNG file to write.

    Returns:
        The matplotlib `Figure`.

    Raises:
        ValueError: If no row has a `top1`.
    """
    from matplotlib.figure import Figure  # no pyplot: it would choose a screen
    from matplotlib.ticker import LogLocator, NullLocator

    rows = [row for row in rows if row["top1"] is not None]
    if not rows:
        raise ValueError(
            "`rows` must hold a model whose accuracy the paper gives. Received: none of those"
        )
    figure = Figure(figsize=(11, 5), layout="constrained")
    by_cost, by_speed = figure.subplots(1, 2, sharey=True)
    for row in rows:
        _, colour = _family(row["model"])
        speed, (lowest, highest) = row["images_per_second"], row["spread"]
        by_speed.plot([lowest, highest], [row["top1"]] * 2, color=colour, linewidth=1)
        for axis, x in ((by_cost, row["macs"] / 1e9), (by_speed, speed)):
            size = _AREA * row["parameters"] / 1e6
            axis.scatter(x, row["top1"], s=size, color=colour, alpha=0.5, linewidths=0)
            # This package's own on the right: their neighbours are of other families.
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


def _family(name):
    return next((family for start, family in _FAMILIES.items() if name.startswith(start)), _OTHER)
