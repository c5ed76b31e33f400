"""Models for deployment: what a server or another runtime reads, without Keras."""

from keras_crossvit.export.saved_model import export_saved_model

__all__ = ["export_saved_model"]
