"""Graph functions that stay calls."""

import tensorflow as tf


def outlined(function):
    """A `tf.function` that is not copied into the graph that calls it.

    For the branches of a condition: every operation of a branch that is not taken still costs
    time (it is told that it has nothing to do), and a call is one operation.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
