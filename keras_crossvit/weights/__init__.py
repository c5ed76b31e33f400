"""Checkpoints: where they come from, their names, and how they get into a model."""

from keras_crossvit.weights.checkpoint import load_checkpoint, save_checkpoint
from keras_crossvit.weights.sources import PublishedWeights, resolve

__all__ = ["PublishedWeights", "load_checkpoint", "resolve", "save_checkpoint"]
