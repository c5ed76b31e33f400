"""Checkpoints: finding, reading, loading and saving them."""

from keras_crossvit.weights.checkpoint import load_checkpoint, save_checkpoint
from keras_crossvit.weights.sources import PublishedWeights, resolve

__all__ = ["PublishedWeights", "load_checkpoint", "resolve", "save_checkpoint"]
