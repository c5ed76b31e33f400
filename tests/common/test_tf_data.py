"""What pipelines and the program around them agree on."""

from tests.base import run_python


def test_a_program_can_end_while_its_pipeline_is_in_python():
    """Two out of three runs would never end if the pipeline called `tf.numpy_function` itself."""
    code = """if True:
        import time
        import tensorflow as tf
        from keras_crossvit.common.tf_data import call_python, python_ends

        def slow(number):
            time.sleep(0.05)
            return 10 * number

        def call(number):
            return call_python(slow, [number], tf.int64)

        numbers = tf.data.Dataset.range(100).take_while(lambda _: ~python_ends())
        tens = iter(numbers.map(call, 2).prefetch(50))  # a name of the module, which outlives it
        print(next(tens).numpy(), next(tens).numpy())
    """
    assert run_python(code) == "0 10\n"
