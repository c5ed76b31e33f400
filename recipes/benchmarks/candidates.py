"""The candidates: the same work by this package and by timm.

Functions for `turns.worker`: each returns what can be timed, by name. What they need is imported
inside them, so that a process holds only its own candidate's libraries. Our forward pass, which
several engines can run, is in `engines.py`.
"""

import os
import resource
import subprocess
import sys
import time
from types import ModuleType

import numpy as np

from benchmarks.turns import Timed, noise, timed

_DEIT = ("deit_tiny", "deit_small", "deit_base")


def timm_name(name: str) -> str:
    """What timm calls the model `name`; timm may not have it."""
    name, _, side = name.partition("@")
    return f"{name}_patch16_{side or 224}" if name in _DEIT else f"{name}_{side or 240}"


def timm_inference(name: str, batch_size: int, precision: str, variant: str) -> Timed:
    """Images/s of timm's forward pass: "eager", "compiled", "cast" (all bfloat16), "openvino".

    For anything but float32 the first two run under autocast, and OpenVINO in bfloat16.
    """
    model, torch = _timm_model(name)
    if model is None:
        return {}
    model.eval()
    images, _ = noise(batch_size, model.default_cfg["input_size"][1:])
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    if variant == "openvino":
        return {"forward": _timm_by_openvino(model, images, precision, torch)}
    autocast = precision != "float32" and variant != "cast"
    if variant == "cast":
        model, images = model.to(torch.bfloat16), images.to(torch.bfloat16)
    elif variant == "compiled":
        model = torch.compile(model)

    @torch.inference_mode()
    def forward():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(images)

    return {"forward": timed(forward, batch_size)}


def _timm_by_openvino(model, images, precision, torch):
    import openvino

    with torch.no_grad():  # as `engines` does with ours
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    converted = openvino.convert_model(model, example_input=images, input=list(images.shape))
    hint = {"INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16"}
    run = openvino.Core().compile_model(converted, "CPU", hint)
    pixels = images.numpy()
    return timed(lambda: run(pixels), len(pixels))


def our_training(
    name: str,
    batch_size: int,
    precision: str,
    jit_compile: bool,
    gradient_checkpointing: bool,
    engine: str,
) -> Timed:
    """Images/s of the step and optimizer of a training run, and what else it takes."""
    os.environ["KERAS_BACKEND"] = engine
    import keras
    import tensorflow as tf

    from benchmarks.models import make_model
    from keras_crossvit.common.tf_data import as_written
    from keras_crossvit.training import make_optimizer, make_strategy
    from keras_crossvit.training.steps import step_class

    keras.config.set_dtype_policy(precision)
    options = {"gradient_checkpointing": True} if gradient_checkpointing else {}
    start = time.perf_counter()
    model = make_model(name, classifier_activation=None, **options)
    build_seconds = time.perf_counter() - start
    images, labels = noise(batch_size, model.input_shape[1:3])
    labels = np.eye(model.output_shape[-1], dtype="float32")[labels]
    batches = as_written(tf.data.Dataset.from_tensors((images, labels)).repeat())
    optimizer = make_optimizer(model, 1e-4, 0.05, total_steps=1000, warmup_steps=10)
    strategy = make_strategy("none")
    step = step_class()(model, optimizer, strategy, jit_compile=jit_compile)
    feed = step.feed(batches)

    def train(steps):
        for _ in range(steps):
            sums = step.train(feed, 1)
        np.asarray(sums)  # waits for the device

    timed = _training(lambda: train(1), lambda: train(4), 4 * batch_size)
    return {"build_seconds": lambda: build_seconds, **timed}


def timm_training(name: str, batch_size: int, precision: str, jit_compile: bool) -> Timed:
    """The same for timm's model with PyTorch's AdamW; `jit_compile` is `torch.compile`."""
    model, torch = _timm_model(name)
    if model is None:
        return {}
    model.train()
    images, labels = noise(batch_size, model.default_cfg["input_size"][1:])
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.05)
    forward = torch.compile(model) if jit_compile else model

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
                loss = torch.nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()

    return _training(lambda: steps(1), lambda: steps(4), 4 * batch_size)


def import_seconds(engine: str) -> float:
    """What `import keras_crossvit` adds to `import keras`, in a new process with this backend.

    Raises:
        RuntimeError: If the import fails; the process has printed why.
    """
    code = """
import time, keras
start = time.perf_counter()
import keras_crossvit
print(time.perf_counter() - start)
"""
    command = [sys.executable, "-c", code]
    own = {**os.environ, "KERAS_BACKEND": engine}
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=own)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(
            f"`import keras_crossvit` failed with KERAS_BACKEND={engine}: "
            f"its process ended with exit code {error.returncode}"
        ) from error
    return float(done.stdout)


def import_timm() -> ModuleType | None:
    """timm, or `None` where it cannot be imported.

    torchvision may have been built for another torch. Its compiled operators are then missing;
    timm's models and transforms use none of them.
    """
    try:
        import torch
    except ImportError:
        return None
    register_fake = torch.library.register_fake

    def register_if_there(*args, **kwargs):
        def register(function):
            try:
                return register_fake(*args, **kwargs)(function)
            except RuntimeError:
                return function

        return register

    torch.library.register_fake = register_if_there
    try:
        import timm
        import timm.data
    except ImportError:
        return None
    finally:
        torch.library.register_fake = register_fake
    return timm


def _training(first_step, steps, images):
    """Takes the first step, and returns what the process can then be asked for."""
    start = time.perf_counter()
    first_step()
    seconds = time.perf_counter() - start
    return {
        "first_step_seconds": lambda: seconds,
        "images_per_second": timed(steps, images),
        # Of the whole process: program, weights, activations. Linux counts in KiB.
        "peak_memory_gb": lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _timm_model(name):
    """`(timm's model without trained weights, torch)`, or `(None, None)`."""
    timm = import_timm()
    if timm is None or timm_name(name) not in timm.list_models():
        return None, None
    import torch

    return timm.create_model(timm_name(name), pretrained=False), torch
