"""What is said about pictures that cannot be read."""

import logging

import tensorflow as tf

logger = logging.getLogger(__name__)
_named = set()  # of this process: a picture is met again in every epoch


def report_skipped(names, good):
    """Names the pictures that could not be read in the log, each once in a process.

    Args:
        names: `(N,)` strings; an empty name is a row that stands for no picture.
        good: bool `(N,)`, whether it could be read.

    Returns:
        `good`, once the rest is named.
    """
    unreadable = tf.boolean_mask(names, ~good & (names != ""))

    def name_them():
        with tf.control_dependencies([tf.numpy_function(_name, [unreadable], [], stateful=True)]):
            return tf.identity(good)

    return tf.cond(tf.size(unreadable) > 0, name_them, lambda: good)


def _name(names):
    for name in {name.decode(errors="replace") for name in names} - _named:
        _named.add(name)
        logger.warning(
            "skipped, not a picture that can be read (%d so far): %s", len(_named), name
        )
