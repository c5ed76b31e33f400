"""Exports models to formats that servers and other runtimes read without Keras."""

from keras_crossvit.export.formats import export
from keras_crossvit.export.load import load_exported
from keras_crossvit.export.runtimes import export_litert, export_onnx, export_openvino
from keras_crossvit.export.saved_model import export_saved_model
from keras_crossvit.export.triton import export_triton

__all__ = [
    "export",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_saved_model",
    "export_triton",
    "load_exported",
]
