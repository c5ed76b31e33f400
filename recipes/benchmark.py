"""Measures a model on this machine.

    python recipes/benchmark.py --model crossvit_15_dagger --mode train --json train.json

`infer` and `train` give images/s; `train` also the peak memory of the process, with and, by
`--gradient-checkpointing`, without the activations of the encoders.
"""

import argparse
import json
import pathlib

import keras

import keras_crossvit as kc
from keras_crossvit.benchmark import measure_inference, measure_training

MODES = {"infer": measure_inference, "train": measure_training}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=kc.presets(), required=True)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", default="float32", help="Keras dtype policy")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
    arguments = parser.parse_args()
    keras.config.set_dtype_policy(arguments.precision)
    model = kc.CrossViT(
        kc.CrossViTConfig.preset(arguments.model),
        weights=None,
        gradient_checkpointing=arguments.gradient_checkpointing,
    )
    result = {**vars(arguments), **MODES[arguments.mode](model, arguments.batch_size)}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
