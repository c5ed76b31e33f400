"""Pipelines of `tf.data` that are not tuned while they run."""


def untuned(batches):
    """The dataset `batches`, to run with the numbers of parallel calls that it was given.

    In TensorFlow 2.21 the thread that tunes a pipeline can miss that the pipeline has ended.
    Whoever ends it then waits, idle, up to as long again as it ran, a minute at most.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)
