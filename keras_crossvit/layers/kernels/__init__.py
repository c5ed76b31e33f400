"""The arithmetic of the layers, as fast and as frugal as each backend allows.

`portable` says what is computed. `tensorflow` computes the same in the shapes that TensorFlow
fuses, and keeps less for the backward pass; JAX and PyTorch fuse by themselves.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_crossvit.layers.kernels.tensorflow import attention, dense, layer_norm, mlp
else:
    from keras_crossvit.layers.kernels.portable import attention, dense, layer_norm, mlp

__all__ = ["attention", "dense", "layer_norm", "mlp"]
