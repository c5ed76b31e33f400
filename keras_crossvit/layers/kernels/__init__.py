"""The computations of the layers, as fast and with as little memory as each backend allows.

`portable` defines what is computed. `tensorflow` computes the same in the shapes that
TensorFlow can fuse, and stores less for the backward pass. JAX and PyTorch fuse by themselves.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_crossvit.layers.kernels.tensorflow import (
        add_bias,
        attend,
        attention,
        dense,
        layer_norm,
        mlp,
    )
else:
    from keras_crossvit.layers.kernels.portable import (
        add_bias,
        attend,
        attention,
        dense,
        layer_norm,
        mlp,
    )

__all__ = ["add_bias", "attend", "attention", "dense", "layer_norm", "mlp"]
