"""How variables are made."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def one_name_in_tensorflow() -> Iterator[None]:
    """A context in which all variables have one name in TensorFlow; or a decorator.

    TensorFlow prepares the operation that makes a variable anew for each name, which takes twice
    as long as making it. Nothing refers to these names: Keras has names and paths of its own.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    # The slash leaves out the name scopes around it.
    with tf.variable_creator_scope(lambda make, **given: make(**{**given, "name": "variable/"})):
        yield
