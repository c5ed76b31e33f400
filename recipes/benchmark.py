"""Measures models on this machine's processor, and counts their cost.

    python recipes/benchmark.py --mode summary --markdown tables.md --json tables.json
    python recipes/benchmark.py --mode infer --model crossvit_15_dagger --json infer.json
    python recipes/benchmark.py --mode infer --model crossvit_15_dagger --engine openvino
    python recipes/benchmark.py --mode infer --model crossvit_15_dagger,deit_small,ResNet101 \
        --batch-size 16 --json speeds.json --figure speed.png
    python recipes/benchmark.py --mode train --model crossvit_15_dagger --json train.json
    python recipes/benchmark.py --mode first-step --model crossvit_15_dagger --json first.json
    python recipes/benchmark.py --mode input --json input.json
    python recipes/benchmark.py --mode scale --records 1000000 --workers 8 --json scale.json
    python recipes/benchmark.py --mode serve --model crossvit_15_dagger --json serve.json

`summary` counts parameters and multiply-accumulates of every model of the paper's tables 2, 3,
4, 6, 7 and 8 and sets them beside the paper's. The other modes measure processors (CPUs): GPUs are
hidden from ours and from timm's. Where timm is installed (with torchvision, which it needs) and
has the model, it does the same work in turn, each in a process of its own that is paused while
another is timed; otherwise its figures are null. So are those of a variant of timm that fails:
stderr says why, and the others are still measured.

`infer` with one model gives images/s of the compiled forward pass in one engine, the shares of it
that `predict` and `evaluate` reach, and its share of the machine's rate in a product of 4096 x
4096 matrices. timm runs in PyTorch and, if it is installed, in OpenVINO. With several models,
presets and CNNs of `keras.applications`, it gives images/s, the models in turn; NAME@SIDE is a
model at another input size. `train` gives images/s, peak memory and the first step of training
with AdamW; `first-step` the first step alone, in new processes, with what comes before it: the
import beyond Keras' own, and building the model. `input` gives images/s per core of a training
run's pipeline, `serve` those of the exported model through gRPC. `scale` makes a synthetic dataset
of --records records and prints how good its order is, what each of --workers workers reads, and
what resuming costs.

`--precision` is a Keras dtype policy: bfloat16 for inference, mixed_bfloat16 for training. The
engine openvino also takes int8, quantised with the images that are then timed, the rest in
bfloat16. An option that a mode does not use is refused, except that `summary` and `input` may be
given a --model.
"""

import argparse
import json
import os
import sys

from benchmarks.engines import ENGINES, RUNTIMES
from crossvit_command import set_environment

set_environment()
# timm's models run on the processor, so ours must too. Processes that are measured inherit this.
os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"}

# Keras and what imports it wait until a mode runs: the processes that are measured import this
# file too, and timm's should hold only timm.


def main():
    arguments = _parse()
    import keras

    if arguments.precision != "int8":  # an engine's, not a policy of Keras
        keras.config.set_dtype_policy(arguments.precision)
    try:
        _report(arguments, MODES[arguments.mode](arguments))
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _report(arguments, found):
    """Prints and writes what was measured; draws it last, as that may fail."""
    from keras_crossvit.common.files import write_text

    used = ("mode", "json", *USES[_case(arguments)])
    result = {name: value for name, value in vars(arguments).items() if name in used} | found
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if arguments.mode not in WITH_TABLES:  # whose tables are printed already
        print(text)
    if arguments.json:
        write_text(arguments.json, text + "\n")
    if arguments.figure:
        from benchmarks import figure1

        figure1.plot_speed(found["models"], arguments.figure)


_TIMED = ("model", "batch_size", "repeats", "precision")
_IN_ENGINES = (*_TIMED, "engine", "jit_compile")
_SEVERAL = "infer with several models or --figure"
USES = {  # the options that a mode uses, besides --json
    "summary": ("markdown",),
    "infer": _IN_ENGINES,
    _SEVERAL: (*_TIMED, "figure"),
    "train": (*_IN_ENGINES, "gradient_checkpointing"),
    "first-step": _IN_ENGINES,
    "input": ("repeats",),
    "scale": ("records", "workers"),
    "serve": ("model", "precision"),
}
IGNORE_MODEL = ("summary", "input")  # so that the same --model can be given to these, too


def _case(arguments):
    """The key of `USES`: the mode, or what `infer` is with several models or a figure."""
    several = arguments.figure or "," in (arguments.model or "")
    return _SEVERAL if arguments.mode == "infer" and several else arguments.mode


def _parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument(
        "--model", metavar="NAME", help="a model; infer also takes several: NAME,NAME,..."
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5, help="how often each is timed")
    parser.add_argument(
        "--records", type=int, default=1_000_000, help="records of the dataset, for scale"
    )
    parser.add_argument("--workers", type=int, default=8, help="workers that read it, for scale")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--jit-compile", action="store_true", help="compile our model with XLA")
    parser.add_argument(
        "--engine", choices=ENGINES, default="tensorflow", help="what runs our model"
    )
    parser.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="for train: recompute our activations",
    )
    parser.add_argument("--json", metavar="FILE", help="where to write the results")
    parser.add_argument("--markdown", metavar="FILE", help="where summary writes its tables")
    parser.add_argument("--figure", metavar="FILE", help="where infer draws figure 1, a PNG")
    arguments = parser.parse_args()
    for name in ("batch_size", "repeats", "records", "workers"):
        if getattr(arguments, name) < 1:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} must be positive. Received: {getattr(arguments, name)}")
    if arguments.model is None and "model" in USES[arguments.mode]:
        parser.error(f"--model is needed for --mode {arguments.mode}")
    fault = _fault(arguments, parser.get_default) or _lost(arguments)
    if fault:
        parser.error(fault)
    return arguments


def _fault(arguments, default):
    """Which option would be ignored, or cannot be used with the engine; or `None`."""
    case = _case(arguments)
    used = {"mode", "json", *USES[case]}
    if case in IGNORE_MODEL:
        used.add("model")
    for name, value in vars(arguments).items():
        if name not in used and value != default(name):
            modes = dict.fromkeys(key.split()[0] for key in USES if name in USES[key])
            option = f"--{name.replace('_', '-')}"
            return f"{option} is for --mode {', '.join(modes)}. Received: --mode {case}"
    runtimes = [name for name, (_, precisions) in RUNTIMES.items() if "int8" in precisions]
    if arguments.precision == "int8" and arguments.engine not in runtimes:
        return (
            f"--precision int8 is for --engine {' or '.join(runtimes)}. "
            f"Received: --engine {arguments.engine}"
        )
    return None


def _lost(arguments):
    """Which result could not be written or drawn in the end, or `None`."""
    from benchmarks import paper

    for name in ("json", "markdown", "figure"):
        path = getattr(arguments, name)
        if path and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or ".")):
            return f"--{name} must be a file in an existing folder. Received: {path}"
    if arguments.figure:
        names = arguments.model.split(",")
        if not any(paper.paper_top1(name) for name in names):
            return (
                "--figure needs a --model whose accuracy the paper gives. "
                f"Received: --model {arguments.model}"
            )
    return None


def summary(arguments):
    from benchmarks import tables
    from keras_crossvit.common.files import write_text

    counted = tables.summarize()
    text = tables.to_markdown(counted)
    print(text)
    if arguments.markdown:
        write_text(arguments.markdown, text)
    return {"tables": counted}


def infer(arguments):
    from benchmarks import compare, figure1, models, paper

    if _case(arguments) == "infer":
        options = {"jit_compile": arguments.jit_compile, "engine": arguments.engine}
        return compare.compare_inference(*_model(arguments), **options)
    built = {name: models.make_model(name) for name in arguments.model.split(",")}
    speeds = figure1.measure_inference(built, arguments.batch_size, arguments.repeats)
    rows = [
        {
            "model": name,
            **speeds[name],
            **models.cost_of(model),
            "input_size": model.input_shape[1:3],
            "top1": paper.paper_top1(name),
        }
        for name, model in built.items()
    ]
    return {"models": rows}


def train(arguments):
    from benchmarks import compare

    return compare.compare_training(
        *_model(arguments),
        jit_compile=arguments.jit_compile,
        gradient_checkpointing=arguments.gradient_checkpointing,
        engine=arguments.engine,
    )


def first_step(arguments):
    from benchmarks import compare

    options = {"jit_compile": arguments.jit_compile, "engine": arguments.engine}
    return compare.compare_first_step(*_model(arguments), **options)


def _model(arguments):
    return arguments.model, arguments.batch_size, arguments.precision, arguments.repeats


def pipeline(arguments):
    from benchmarks.input import measure_input

    return measure_input(repeats=arguments.repeats)


def scale(arguments):
    from benchmarks.scale import measure_scale, to_markdown

    figures = measure_scale(arguments.records, arguments.workers)
    print(to_markdown(figures), end="")
    return figures


def serve(arguments):
    from benchmarks import models, serving

    return serving.measure_serving(models.make_model(arguments.model))


MODES = {
    "summary": summary,
    "infer": infer,
    "train": train,
    "first-step": first_step,
    "input": pipeline,
    "scale": scale,
    "serve": serve,
}
PRECISIONS = ("float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16", "int8")
WITH_TABLES = {"summary", "scale"}


if __name__ == "__main__":
    main()
