"""The picture of a run."""


def plot_curves(history, path):
    """Draws loss and accuracy per epoch, training and validation side by side.

    Args:
        history: `{"loss": [...], "accuracy": [...], "val_loss": ..., "val_accuracy": ...}`,
            a value per epoch, as `fit` returns it.
        path: The PNG file to write.
    """
    from matplotlib.figure import Figure  # no pyplot: it would choose a screen

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        epochs = range(1, len(history[metric]) + 1)
        axis.plot(epochs, history[metric], label="training")
        axis.plot(epochs, history[f"val_{metric}"], label="held out")
        axis.set(xlabel="epoch", title=metric)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
