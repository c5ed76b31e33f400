"""Measures on this machine, and counts.

    python recipes/benchmark.py --mode summary --markdown tables.md --json tables.json
    python recipes/benchmark.py --mode infer --model crossvit_15_dagger,deit_small,ResNet101 \
        --batch-size 16 --json infer.json --figure speed.png
    python recipes/benchmark.py --mode train --model crossvit_15_dagger --json train.json
    python recipes/benchmark.py --mode input --json input.json
    python recipes/benchmark.py --mode serve --model crossvit_15_dagger --json serve.json

`summary` counts parameters and multiply-accumulates of every model of the paper's tables 2, 3,
4, 6, 7 and 8 and sets them beside the paper's. `infer` gives images/s of any presets and CNNs of
`keras.applications`, in turn; NAME@SIDE is a model at another input size. `train` gives images/s
and peak memory of a training step, with and, by `--gradient-checkpointing`, without the
activations of the encoders. `input` gives images/s per core of a training run's pipeline next to
timm's, if timm and torchvision are installed. `serve` measures the exported model through gRPC.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from keras_crossvit import benchmark


def main():
    arguments = _parse()
    keras.config.set_dtype_policy(arguments.precision)
    result = {**vars(arguments), **MODES[arguments.mode](arguments)}
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if arguments.mode != "summary":  # which has printed its tables
        print(text)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + "\n", encoding="utf-8")


def _parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--model", metavar="NAME", help="a model; for infer: NAME,NAME,...")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7, help="timed turns of infer and input")
    parser.add_argument("--precision", default="float32", help="Keras dtype policy")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
    parser.add_argument("--markdown", metavar="FILE", help="where summary writes its tables")
    parser.add_argument("--figure", metavar="FILE", help="where infer draws figure 1, a PNG")
    arguments = parser.parse_args()
    if arguments.model is None and arguments.mode not in WITHOUT_MODEL:
        parser.error(f"--model is needed for --mode {arguments.mode}")
    return arguments


def summary(arguments):
    tables = benchmark.summarize()
    text = benchmark.to_markdown(tables)
    print(text)
    if arguments.markdown:
        pathlib.Path(arguments.markdown).write_text(text, encoding="utf-8")
    return {"tables": tables}


def infer(arguments):
    names = arguments.model.split(",")
    models = {name: benchmark.make_model(name) for name in names}
    speeds = benchmark.measure_inference(models, arguments.batch_size, arguments.repeats)
    rows = [
        {
            "model": name,
            **speeds[name],
            **benchmark.cost_of(model),
            "input_size": model.input_shape[1:3],
            "top1": benchmark.paper_top1(name),
        }
        for name, model in models.items()
    ]
    if arguments.figure:
        benchmark.plot_speed(rows, arguments.figure)
    return rows[0] if len(rows) == 1 else {"models": rows}


def train(arguments):
    frugal = {"gradient_checkpointing": True} if arguments.gradient_checkpointing else {}
    model = benchmark.make_model(arguments.model, **frugal)
    return benchmark.measure_training(model, arguments.batch_size)


def serve(arguments):
    # TensorFlow Serving's packages are needed by this mode alone.
    from keras_crossvit.benchmark.serve import measure_serving

    return measure_serving(benchmark.make_model(arguments.model))


def pipeline(arguments):
    from keras_crossvit.benchmark.input import measure_input

    return measure_input(repeats=arguments.repeats)


MODES = {"summary": summary, "infer": infer, "train": train, "input": pipeline, "serve": serve}
WITHOUT_MODEL = {"summary", "input"}


if __name__ == "__main__":
    main()
