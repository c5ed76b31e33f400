"""Our forward pass in each engine that can run it, and what the machine itself can do.

Functions for `turns.worker`; what they need is imported inside them.
"""

import os
import pathlib
import tempfile

from benchmarks.turns import Timed, noise, timed

BACKENDS = ("tensorflow", "jax", "torch")  # of Keras
TRAINING_BACKENDS = ("tensorflow", "jax")
RUNTIMES = {  # of exported files: the format, and the precisions that it can be asked for
    "openvino": ("openvino", ("float32", "bfloat16", "int8")),
    "onnxruntime": ("onnx", ("float32",)),
}
ENGINES = (*BACKENDS, *RUNTIMES)

_BATCHES = 8  # in a call of `predict` or `evaluate`
_PRODUCT = 4096  # side of the matrices whose product tells how fast the machine is


def check_engine(engine: str, precision: str, jit_compile: bool) -> None:
    """Raises `ValueError` if an engine cannot compute this way."""
    if engine not in RUNTIMES:
        if precision == "int8":
            raise ValueError(
                "`precision` must be a dtype policy of Keras, such as bfloat16, with "
                f"engine={engine!r}. Received: precision='int8'"
            )
        return
    _, allowed = RUNTIMES[engine]
    if precision not in allowed:
        raise ValueError(
            f"`precision` must be one of {', '.join(allowed)} with engine={engine!r}. "
            f"Received: precision={precision!r}"
        )
    if jit_compile:
        raise ValueError(
            f"`jit_compile` must be false with engine={engine!r}, which compiles by itself. "
            "Received: jit_compile=True"
        )


def check_training_engine(engine: str) -> None:
    """Raises `ValueError` if an engine cannot train by a recipe."""
    if engine not in TRAINING_BACKENDS:
        raise ValueError(
            f"`engine` must be one of {', '.join(TRAINING_BACKENDS)} to train. "
            f"Received: engine={engine!r}"
        )


def our_inference(
    name: str, batch_size: int, precision: str, jit_compile: bool, engine: str
) -> Timed:
    """Images/s of the forward pass and, for a Keras backend, of `predict` and `evaluate`.

    JAX always compiles; with `jit_compile` TensorFlow does by XLA, and PyTorch by `torch.compile`.
    In "int8" the rest is bfloat16.
    """
    if engine in RUNTIMES:
        return _of_file(name, batch_size, precision, engine)
    os.environ["KERAS_BACKEND"] = engine
    import keras

    from benchmarks.models import make_model

    keras.config.set_dtype_policy(precision)
    model = make_model(name)
    # On JAX, Keras would compute operation by operation.
    model.compile(
        loss="sparse_categorical_crossentropy", jit_compile=jit_compile or engine == "jax"
    )
    images, labels = noise(batch_size * _BATCHES, model.input_shape[1:3])
    forward = _FORWARD[engine](model, images[:batch_size], jit_compile)

    def some_batches():
        for _ in range(4):
            forward()

    def evaluate():
        model.evaluate(images, labels, batch_size, verbose=0)

    return {
        "forward": timed(some_batches, 4 * batch_size),
        "predict": timed(lambda: model.predict(images, batch_size, verbose=0), len(images)),
        "evaluate": timed(evaluate, len(images)),
    }


def machine() -> Timed:
    """Billions of multiply-accumulates per second of a product of 4096 x 4096 matrices.

    By TensorFlow's matrix library, in float32 and in bfloat16.
    """
    import tensorflow as tf

    def rate(dtype):
        matrix = tf.cast(tf.random.normal((_PRODUCT, _PRODUCT)), dtype)
        product = tf.function(lambda: tf.matmul(matrix, matrix))
        return timed(lambda: _finished(product), _PRODUCT**3 / 1e9)

    return {dtype: rate(dtype) for dtype in ("float32", "bfloat16")}


def processor() -> str:
    """The processor's name, family and model, as Linux reports them; "unknown" elsewhere."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    found = {key.strip(): value.strip() for key, _, value in pairs}
    names = {"model name": "", "cpu family": "family ", "model": "model "}
    parts = [word + found[key] for key, word in names.items() if key in found]
    return ", ".join(parts) or "unknown"


def _of_tensorflow(model, batch, jit_compile):
    import tensorflow as tf

    images = tf.constant(batch)
    forward = tf.function(lambda x: model(x, training=False), jit_compile=jit_compile)
    return lambda: _finished(lambda: forward(images))


def _finished(function):
    """Calls a function of TensorFlow and waits for the device, which may still be computing."""
    import tensorflow as tf

    function()
    tf.test.experimental.sync_devices()


def _of_jax(model, batch, jit_compile):
    import jax

    images = jax.device_put(batch)

    @jax.jit
    def forward(state, images):
        return model.stateless_call(*state, images, training=False)[0]

    def run():
        # Read each time: `evaluate` replaces the arrays, and deletes those from before.
        variables = model.trainable_variables, model.non_trainable_variables
        state = tuple([v.value for v in group] for group in variables)
        forward(state, images).block_until_ready()

    return run


def _of_torch(model, batch, jit_compile):
    import torch
    from keras import ops

    images = ops.convert_to_tensor(batch)
    call = torch.compile(model) if jit_compile else model

    @torch.inference_mode()
    def forward():
        call(images, training=False).sum().item()  # waits for the device

    return forward


_FORWARD = {"tensorflow": _of_tensorflow, "jax": _of_jax, "torch": _of_torch}


def _of_file(name, batch_size, precision, engine):
    import keras

    from benchmarks.models import make_model
    from keras_crossvit.export import export, load_exported

    model = make_model(name)
    # Converters leave out a new model's biases of 0 and scales of 1.
    for variable in model.trainable_variables:
        variable.assign_add(keras.random.normal(variable.shape, stddev=0.02))
    images, _ = noise(batch_size, model.input_shape[1:3])
    int8 = {"int8": True, "samples": images} if precision == "int8" else {}
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, RUNTIMES[engine][0], folder, **int8)
        compiled_for = batch_size if engine == "openvino" else None
        run = load_exported(file, "bfloat16" if int8 else precision, compiled_for)
    return {"forward": timed(lambda: run(images), batch_size)}
