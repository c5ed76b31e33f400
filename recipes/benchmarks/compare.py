"""Comparisons with timm, in turns within one run."""

import contextlib
import statistics
from typing import Any

from benchmarks.candidates import (
    import_seconds,
    our_training,
    timm_inference,
    timm_training,
)
from benchmarks.engines import (
    check_engine,
    check_training_engine,
    machine,
    our_inference,
    processor,
)
from benchmarks.models import cost_of, find_model, make_model
from benchmarks.turns import median, ratios, rounded, spread, worker

_RATES = ("float32", "bfloat16")


def compare_inference(
    name: str,
    batch_size: int,
    precision: str = "float32",
    repeats: int = 7,
    jit_compile: bool = False,
    engine: str = "tensorflow",
) -> dict[str, Any]:
    """Measures the forward pass of a model against timm's, in turns.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: Keras dtype policy. For anything but float32 timm runs under autocast and,
            as a further variant, with the whole model cast to bfloat16.
        repeats: Timed turns, after one that is not timed.
        jit_compile: Whether ours is compiled by XLA, or on PyTorch by `torch.compile`.
        engine: What runs ours: a Keras backend, or a runtime of exported files.

    Returns:
        A dictionary of medians. `images_per_second` of the compiled forward pass and its
        `spread`; `predict_share` and `evaluate_share`, the speed of these loops over the forward
        pass's, `None` for exported files; `processor` and `gmacs_per_second`, the rates of
        products of 4096 x 4096 matrices on it in float32 and bfloat16; `matrix_product_share`,
        multiply-accumulates per second (as the paper counts them) over that rate, in the
        precision that ours computes in; `timm_images_per_second`, `{variant: median}`;
        `ratio` to the fastest variant, with its lowest and highest `ratios`, and `pytorch_ratio`
        to the fastest that PyTorch runs. A variant that failed is `None`, as are all of timm's
        figures where timm or its model is missing.

    Raises:
        ValueError: If there is no such model, or the engine has no such precision.
        RuntimeError: If the measurement of ours fails.
    """
    check_engine(engine, precision, jit_compile)
    gmacs = cost_of(make_model(name))["macs"] / 1e9
    variants = ["eager", "compiled", *(["cast"] if precision != "float32" else []), "openvino"]
    arguments = (name, batch_size, precision)
    with contextlib.ExitStack() as stack:
        rates_of = stack.enter_context(worker(machine))
        ours = stack.enter_context(worker(our_inference, *arguments, jit_compile, engine))
        peers = {
            variant: stack.enter_context(
                worker(timm_inference, *arguments, variant, required=False)
            )
            for variant in variants
        }
        turns = [_inference_turn(rates_of, ours, peers) for _ in range(1 + repeats)][1:]

    def share(part, whole):
        if None in rates[part]:
            return None
        return statistics.median(turn[part] / turn[whole] for turn in turns)

    rates = {key: [turn[key] for turn in turns] for key in turns[0]}
    of_timm = {variant: median(rates[variant], 2) for variant in variants}
    complete = [variant for variant in variants if of_timm[variant] is not None]

    def compared(variants):
        fastest = max(variants, key=of_timm.get, default=None)
        return ratios(rates["forward"], rates.get(fastest, [None]))

    return {
        "images_per_second": median(rates["forward"], 2),
        "spread": spread(rates["forward"], 2),
        "predict_share": rounded(share("predict", "forward"), 3),
        "evaluate_share": rounded(share("evaluate", "forward"), 3),
        **_of_machine(rates),
        "matrix_product_share": rounded(gmacs * share("forward", _product_type(precision)), 3),
        "timm_images_per_second": of_timm if complete else None,
        **compared(complete),
        "pytorch_ratio": compared([v for v in complete if v != "openvino"])["ratio"],
        "batch_size": batch_size,
    }


def _inference_turn(rates_of, ours, peers):
    turn = {dtype: rates_of(dtype) for dtype in _RATES}
    turn["forward"] = ours("forward")
    turn |= {variant: peer("forward") for variant, peer in peers.items()}
    return turn | {key: ours(key) for key in ("predict", "evaluate")}


def _product_type(precision):
    """The type, of the two, in which a precision does most of its multiply-accumulates."""
    return "float32" if precision == "float32" else "bfloat16"


def _of_machine(rates):
    found = {dtype: median(rates[dtype], 1) for dtype in _RATES}
    return {"processor": processor(), "gmacs_per_second": found}


def compare_training(
    name: str,
    batch_size: int,
    precision: str = "float32",
    repeats: int = 5,
    jit_compile: bool = False,
    gradient_checkpointing: bool = False,
    engine: str = "tensorflow",
) -> dict[str, Any]:
    """Measures training steps with AdamW against timm's, in turns.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: Keras dtype policy; for anything but float32 timm runs under autocast.
        repeats: Timed turns of four steps, after one that is not timed.
        jit_compile: Whether both are compiled, by XLA and by `torch.compile`.
        gradient_checkpointing: As in `CrossViT`; only for ours.
        engine: The Keras backend of ours, "tensorflow" or "jax".

    Returns:
        `images_per_second` (median) and `spread`, `peak_memory_gb` of the process and
        `first_step_seconds`, from its call to its end; the same for timm under names
        that begin with `timm_`, and `ratio` and `ratios` of the speeds. timm's are `None` where
        timm or its model is missing, or it failed. `processor` and `gmacs_per_second` as in
        `compare_inference`, and `matrix_product_share`, for which the backward pass counts as two
        forward passes.

    Raises:
        ValueError: If there is no such model.
        RuntimeError: If the measurement of ours fails.
    """
    check_training_engine(engine)
    gmacs = cost_of(make_model(name))["macs"] / 1e9
    arguments = (name, batch_size, precision, jit_compile)
    with (
        worker(machine) as rates_of,
        worker(our_training, *arguments, gradient_checkpointing, engine) as ours,
        worker(timm_training, *arguments, required=False) as timm,
    ):
        # The first steps one after the other, so that neither disturbs the other.
        found = _first_step_and_memory(ours, "") | _first_step_and_memory(timm, "timm_")
        key = "images_per_second"
        turns = [
            {"ours": ours(key), "timm": timm(key), **{dtype: rates_of(dtype) for dtype in _RATES}}
            for _ in range(1 + repeats)
        ][1:]
        found |= _first_step_and_memory(ours, "") | _first_step_and_memory(timm, "timm_")
    rates = {key: [turn[key] for turn in turns] for key in turns[0]}
    dtype = _product_type(precision)
    share = statistics.median(turn["ours"] / turn[dtype] for turn in turns)
    return {
        **found,
        "images_per_second": median(rates["ours"], 2),
        "spread": spread(rates["ours"], 2),
        **_of_machine(rates),
        "matrix_product_share": round(3 * gmacs * share, 3),
        "timm_images_per_second": median(rates["timm"], 2),
        **ratios(rates["ours"], rates["timm"]),
        "batch_size": batch_size,
    }


def _first_step_and_memory(turn, prefix):
    return {
        prefix + key: rounded(turn(key), 2) for key in ("first_step_seconds", "peak_memory_gb")
    }


def compare_first_step(
    name: str,
    batch_size: int,
    precision: str = "float32",
    repeats: int = 3,
    jit_compile: bool = False,
    engine: str = "tensorflow",
) -> dict[str, Any]:
    """Seconds from the first call of the training step to its end, in a new process each time.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: As in `compare_training`.
        repeats: Processes for each, ours and timm's alternately.
        jit_compile: As in `compare_training`.
        engine: As in `compare_training`; the import is measured with it, too.

    Returns:
        Medians `first_step_seconds` and `timm_first_step_seconds`, the latter `None` where timm
        or its model is missing or it failed, and `spread` of ours; medians of what comes before,
        only for ours: `import_seconds`, which `import keras_crossvit` adds to `import keras`, and
        `build_seconds`, which building the model takes.

    Raises:
        ValueError: If there is no such model.
        RuntimeError: If the measurement of ours fails.
    """
    check_training_engine(engine)
    find_model(name)
    arguments = (name, batch_size, precision, jit_compile)
    seconds, timm_seconds, imports, builds = [], [], [], []
    for _ in range(repeats):
        imports.append(import_seconds(engine))
        with worker(our_training, *arguments, False, engine) as ours:
            builds.append(ours("build_seconds"))
            seconds.append(ours("first_step_seconds"))
        with worker(timm_training, *arguments, required=False) as timm:
            timm_seconds.append(timm("first_step_seconds"))
    return {
        "first_step_seconds": median(seconds, 1),
        "spread": spread(seconds, 1),
        "timm_first_step_seconds": median(timm_seconds, 1),
        "import_seconds": median(imports, 3),
        "build_seconds": median(builds, 2),
        "batch_size": batch_size,
    }
