"""Checkpoints: where they come from, their names, and how they get into a model."""

from keras_crossvit.weights.checkpoint import load_checkpoint, save_checkpoint
from keras_crossvit.weights.sources import resolve

__all__ = ["load_checkpoint", "resolve", "save_checkpoint"]
