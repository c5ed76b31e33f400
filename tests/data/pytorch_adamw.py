"""The 100 steps of PyTorch's AdamW that `tests/training/test_optimizer.py` follows.

    python -m tests.data.pytorch_adamw

writes `pytorch_adamw.npz` beside this file (needs torch): the weights of a small network after
400 steps on scikit-learn's digits, the losses of 100 more with a new optimizer, and the weights
at the end. From trained weights, since gradients are small there and epsilon matters most.
"""

import pathlib

import numpy as np
from sklearn.datasets import load_digits

STEPS, BATCH_SIZE = 100, 32
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.05
FIGURES = pathlib.Path(__file__).with_suffix(".npz")


def batch(digits, step):
    """Images `(32, 64)` in 0..1, and labels, of a step."""
    rows = np.random.default_rng(step).integers(0, len(digits.target), BATCH_SIZE)
    return digits.data[rows].astype("float32") / 16, digits.target[rows]


def main():
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 32),
        torch.nn.LayerNorm(32, eps=1e-6),
        torch.nn.GELU(),
        torch.nn.Linear(32, 10),
    )
    digits = load_digits()

    def train(steps):
        kernels = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim != 2]
        groups = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        losses = []
        for step in steps:
            images, labels = map(torch.from_numpy, batch(digits, step))
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def weights(moment):
        return {f"{moment} {n}": p.detach().numpy().copy() for n, p in model.named_parameters()}

    train(range(1000, 1400))
    figures = weights("start")
    figures["losses"] = np.array(train(range(STEPS)), "float32")
    np.savez_compressed(FIGURES, **figures, **weights("end"))


if __name__ == "__main__":
    main()
