"""Comparisons with timm, in turns within one run."""

import contextlib
import statistics
from typing import Any

from benchmarks.candidates import (
    import_seconds,
    our_inference,
    our_training,
    timm_inference,
    timm_training,
)
from benchmarks.models import cost_of, find_model, make_model
from benchmarks.turns import median, ratios, spread, worker


def compare_inference(
    name: str,
    batch_size: int,
    precision: str = "float32",
    repeats: int = 7,
    jit_compile: bool = False,
) -> dict[str, Any]:
    """Measures the forward pass of a model against timm's, in turns.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: Keras dtype policy. For anything but float32 timm runs under autocast and,
            as a further variant, with the whole model cast to bfloat16.
        repeats: Timed turns, after one that is not timed.
        jit_compile: Whether ours is compiled by XLA.

    Returns:
        A dictionary of medians. `images_per_second` of the compiled forward pass and its
        `spread`; `predict_share` and `evaluate_share`, the speed of these loops over the forward
        pass's; `matrix_product_share`, multiply-accumulates per second (as the paper counts
        them) over those of a float32 product of 4096 x 4096 matrices on this machine;
        `timm_images_per_second`, `{variant: median}`, and `ratio` to the fastest variant with
        its lowest and highest `ratios`. A variant that failed is `None`, and all of timm's
        figures are where timm or its model is missing.

    Raises:
        ValueError: If there is no such model.
        RuntimeError: If the measurement of ours fails.
    """
    gmacs = cost_of(make_model(name))["macs"] / 1e9
    variants = ("eager", "compiled") if precision == "float32" else ("eager", "compiled", "cast")
    arguments = (name, batch_size, precision)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(worker(our_inference, *arguments, jit_compile))
        peers = {
            variant: stack.enter_context(
                worker(timm_inference, *arguments, variant, required=False)
            )
            for variant in variants
        }
        turns = [_inference_turn(ours, peers) for _ in range(1 + repeats)][1:]

    def share(part, whole):
        return round(statistics.median(turn[part] / turn[whole] for turn in turns), 3)

    rates = {key: [turn[key] for turn in turns] for key in turns[0]}
    of_timm = {variant: median(rates[variant], 2) for variant in variants}
    complete = [variant for variant in variants if of_timm[variant] is not None]
    fastest = max(complete, key=of_timm.get, default=None)
    return {
        "images_per_second": median(rates["forward"], 2),
        "spread": spread(rates["forward"], 2),
        "predict_share": share("predict", "forward"),
        "evaluate_share": share("evaluate", "forward"),
        "matrix_product_share": round(
            gmacs
            * statistics.median(turn["forward"] / turn["gmacs_per_second"] for turn in turns),
            3,
        ),
        "timm_images_per_second": of_timm if complete else None,
        **ratios(rates["forward"], rates.get(fastest, [None])),
        "batch_size": batch_size,
    }


def _inference_turn(ours, peers):
    turn = {key: ours(key) for key in ("gmacs_per_second", "forward")}
    turn |= {variant: peer("forward") for variant, peer in peers.items()}
    return turn | {key: ours(key) for key in ("predict", "evaluate")}


def compare_training(
    name: str,
    batch_size: int,
    precision: str = "float32",
    repeats: int = 5,
    jit_compile: bool = False,
    gradient_checkpointing: bool = False,
) -> dict[str, Any]:
    """Measures training steps with AdamW against timm's, in turns.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: Keras dtype policy; for anything but float32 timm runs under autocast.
        repeats: Timed turns of four steps, after one that is not timed.
        jit_compile: Whether both are compiled, by XLA and by `torch.compile`.
        gradient_checkpointing: As in `CrossViT`; only for ours.

    Returns:
        `images_per_second` (median) and `spread`, `peak_memory_gb` of the process and
        `first_step_seconds`, from its call to its end; the same of timm under names
        that begin with `timm_`, and `ratio` and `ratios` of the speeds. timm's are `None` where
        timm or its model is missing, or it failed.

    Raises:
        ValueError: If there is no such model.
        RuntimeError: If the measurement of ours fails.
    """
    find_model(name)
    arguments = (name, batch_size, precision, jit_compile)
    ours_made = worker(our_training, *arguments, gradient_checkpointing)
    with ours_made as ours, worker(timm_training, *arguments, required=False) as timm:
        # The first steps one after the other, so that neither disturbs the other.
        found = _first_step_and_memory(ours, "") | _first_step_and_memory(timm, "timm_")
        key = "images_per_second"
        turns = [(ours(key), timm(key)) for _ in range(1 + repeats)][1:]
        found |= _first_step_and_memory(ours, "") | _first_step_and_memory(timm, "timm_")
    rates, timm_rates = zip(*turns, strict=True)
    return {
        **found,
        "images_per_second": median(rates, 2),
        "spread": spread(rates, 2),
        "timm_images_per_second": median(timm_rates, 2),
        **ratios(rates, timm_rates),
        "batch_size": batch_size,
    }


def _first_step_and_memory(turn, prefix):
    figures = {key: turn(key) for key in ("first_step_seconds", "peak_memory_gb")}
    return {
        prefix + key: None if value is None else round(value, 2) for key, value in figures.items()
    }


def compare_first_step(
    name: str,
    batch_size: int,
    precision: str = "float32",
    repeats: int = 3,
    jit_compile: bool = False,
) -> dict[str, Any]:
    """Seconds from the first call of the training step to its end, in a new process each time.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: As in `compare_training`.
        repeats: Processes of each, ours and timm's alternately.
        jit_compile: As in `compare_training`.

    Returns:
        Medians `first_step_seconds` and `timm_first_step_seconds`, the latter `None` where timm
        or its model is missing or it failed, and `spread` of ours; medians of what comes before,
        ours alone: `import_seconds`, which `import keras_crossvit` adds to `import keras`, and
        `build_seconds`, which the model takes.

    Raises:
        ValueError: If there is no such model.
        RuntimeError: If the measurement of ours fails.
    """
    find_model(name)
    arguments = (name, batch_size, precision, jit_compile)
    seconds, timm_seconds, imports, builds = [], [], [], []
    for _ in range(repeats):
        imports.append(import_seconds())
        with worker(our_training, *arguments, False) as ours:
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
