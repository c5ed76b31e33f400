"""The curves of a run."""

import os
from collections.abc import Mapping, Sequence


def plot_curves(rows: Sequence[Mapping[str, float]], path: str | os.PathLike[str]) -> None:
    """Draws loss and accuracy per epoch, training and validation side by side.

    Args:
        rows: A dictionary per epoch with `epoch`, `loss`, `accuracy`, `val_loss` and
            `val_accuracy`.
        path: The PNG file to write.
    """
    from matplotlib.figure import Figure  # not pyplot, which would need a display
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = [row["epoch"] + 1 for row in rows]
    for axis, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axis.plot(epochs, [row[metric] for row in rows], label="training")
        axis.plot(epochs, [row[f"val_{metric}"] for row in rows], label="held out")
        axis.set(xlabel="epoch", title=metric)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
