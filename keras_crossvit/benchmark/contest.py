"""Comparisons with timm, in turns in one run."""

import statistics

from keras_crossvit.benchmark.contestants import (
    import_seconds,
    our_inference,
    our_training,
    timm_inference,
    timm_training,
)
from keras_crossvit.benchmark.named import cost_of, make_model
from keras_crossvit.benchmark.process import process, ratios

_VARIANTS = ("eager", "compiled", "cast")


def compare_inference(name, batch_size, precision="float32", repeats=7, jit_compile=False):
    """Measures the forward pass of a model against timm's, in turns.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: Keras dtype policy. For anything but float32 timm runs under autocast and,
            as another variant, with the whole model in bfloat16.
        repeats: Timed turns, after one that is not timed.
        jit_compile: Whether ours is compiled by XLA.

    Returns:
        A dictionary of medians. `images_per_second` of the compiled forward pass and `spread`;
        `predict_share` and `evaluate_share`, the speed of these loops over the forward pass's;
        `matrix_product_share`, multiply-accumulates per second (as the paper counts them) over
        those of a float32 product of 4096 x 4096 matrices on this machine;
        `timm_images_per_second`, `{variant: median}`, and `ratio` to the fastest of them with
        its lowest and highest `ratios`: `None` where timm or its model is missing.
    """
    ours_made = process(our_inference, name, batch_size, precision, jit_compile)
    timms_made = process(timm_inference, name, batch_size, precision)
    with ours_made as ours, timms_made as timms:
        turns = [_inference_turn(ours, timms) for _ in range(1 + repeats)][1:]

    def median(key, over=None):
        return statistics.median(t[key] / (t[over] if over else 1) for t in turns)

    gmacs = cost_of(make_model(name))["macs"] / 1e9
    rates = [turn["forward"] for turn in turns]
    variants = {x: round(median(x), 2) for x in _VARIANTS if turns[0][x] is not None}
    best = max(variants, key=variants.get, default=None)
    return {
        "images_per_second": round(median("forward"), 2),
        "spread": (round(min(rates), 2), round(max(rates), 2)),
        "predict_share": round(median("predict", over="forward"), 3),
        "evaluate_share": round(median("evaluate", over="forward"), 3),
        "matrix_product_share": round(gmacs * median("forward", over="gmacs_per_second"), 3),
        "timm_images_per_second": variants or None,
        **ratios([turn["forward"] for turn in turns], [turn.get(best) for turn in turns]),
        "batch_size": batch_size,
    }


def _inference_turn(ours, timms):
    turn = {x: ours(x) for x in ("gmacs_per_second", "forward")}
    turn |= {x: timms(x) for x in _VARIANTS}
    return turn | {x: ours(x) for x in ("predict", "evaluate")}


def compare_training(
    name,
    batch_size,
    precision="float32",
    repeats=5,
    jit_compile=False,
    gradient_checkpointing=False,
):
    """Measures training steps with AdamW against timm's, in turns.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: Keras dtype policy; for anything but float32 timm runs under autocast.
        repeats: Timed turns of four steps, after one that is not timed.
        jit_compile: Whether both are compiled, by XLA and by `torch.compile`.
        gradient_checkpointing: As in `CrossViT`; ours alone.

    Returns:
        `images_per_second` (median) and `spread`, `peak_memory_gb` of the process and
        `first_step_seconds`, from calling `fit` to its end; the same of timm behind `timm_`,
        and `ratio` and `ratios` of the speeds: `None` where timm or its model is missing.
    """
    arguments = (name, batch_size, precision, jit_compile)
    ours_made = process(our_training, *arguments, gradient_checkpointing)
    with ours_made as ours, process(timm_training, *arguments) as timms:
        # The first steps one after the other: nothing else runs beside them.
        found = _facts(ours, "") | _facts(timms, "timm_")
        rate = "images_per_second"
        turns = [(ours(rate), timms(rate)) for _ in range(1 + repeats)][1:]
        found |= _facts(ours, "") | _facts(timms, "timm_")
    rates, timms_rates = zip(*turns, strict=True)
    return {
        **found,
        "images_per_second": round(statistics.median(rates), 2),
        "spread": (round(min(rates), 2), round(max(rates), 2)),
        "timm_images_per_second": (
            None if None in timms_rates else round(statistics.median(timms_rates), 2)
        ),
        **ratios(rates, timms_rates),
        "batch_size": batch_size,
    }


def compare_first_step(name, batch_size, precision="float32", repeats=3, jit_compile=False):
    """Seconds from calling `fit` to the end of its first step, in a new process each time.

    Args:
        name: A preset, as in `make_model`.
        batch_size: Images in a batch.
        precision: As in `compare_training`.
        repeats: Processes of each, ours and timm's one after the other.
        jit_compile: As in `compare_training`.

    Returns:
        Medians `first_step_seconds` and `timm_first_step_seconds`, the latter `None` where timm
        or its model is missing, and `spread` of ours; medians of what comes before, ours alone:
        `import_seconds` that `import keras_crossvit` adds to `import keras`, and
        `build_seconds` that the model takes.
    """
    arguments = (name, batch_size, precision, jit_compile)
    seconds, timms_seconds, imports, builds = [], [], [], []
    for _ in range(repeats):
        imports.append(import_seconds())
        with process(our_training, *arguments, False) as ours:
            builds.append(ours("build_seconds"))
            seconds.append(ours("first_step_seconds"))
        with process(timm_training, *arguments) as timms:
            timms_seconds.append(timms("first_step_seconds"))
    timms = None if None in timms_seconds else round(statistics.median(timms_seconds), 1)
    return {
        "first_step_seconds": round(statistics.median(seconds), 1),
        "spread": (round(min(seconds), 1), round(max(seconds), 1)),
        "timm_first_step_seconds": timms,
        "import_seconds": round(statistics.median(imports), 3),
        "build_seconds": round(statistics.median(builds), 2),
        "batch_size": batch_size,
    }


def _facts(turn, prefix):
    facts = {name: turn(name) for name in ("first_step_seconds", "peak_memory_gb")}
    return {prefix + x: None if y is None else round(y, 2) for x, y in facts.items()}
