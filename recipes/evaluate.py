"""Evaluates a model on a labelled set of pictures.

    python recipes/evaluate.py --model crossvit_15_dagger --weights imagenet \
        --dataset imagenet2012 --data-dir DATA --branches --no-exif-orientation
    python recipes/evaluate.py --model crossvit_digits --weights runs/digits/model.keras \
        --dataset digits --crop-ratio 1 --output-dir runs/digits/evaluation

Prints top-1 and top-5; with `--output-dir` writes `evaluation.json` (with the accuracy of each
class) and `confusion.png` as well.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_crossvit as kc
from keras_crossvit.data.sources import open_source
from keras_crossvit.evaluation import evaluate, plot_confusion


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=kc.presets(), required=True)
    parser.add_argument("--weights", required=True, help="imagenet, imagenet-408 or a file")
    parser.add_argument(
        "--dataset", required=True, help="a TensorFlow dataset, folder:PATH or csv:FILE"
    )
    parser.add_argument("--data-dir", help="where tensorflow-datasets keeps its data")
    parser.add_argument(
        "--split", type=_split, help="by default validation, val or test; 0.2: a share of train"
    )
    parser.add_argument("--branches", action="store_true", help="each branch's own head, too")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--input-size", type=int, help="by default the model's")
    parser.add_argument("--crop-ratio", type=float, help="by default the published one")
    parser.add_argument(
        "--exif-orientation",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn images upright as their EXIF says; timm does not",
    )
    parser.add_argument("--output-dir", help="where to write evaluation.json, confusion.png")
    arguments = parser.parse_args()
    source = open_source(arguments.dataset, arguments.data_dir, validation_split=arguments.split)
    side = arguments.input_size
    model = kc.CrossViT(
        kc.CrossViTConfig.preset(arguments.model),
        weights=arguments.weights,
        input_shape=None if side is None else (side, side, 3),
        classes=len(source.class_names),
    )
    result = evaluate(
        model,
        source.validation,
        source.class_names,
        arguments.batch_size,
        arguments.crop_ratio,
        arguments.branches,
        arguments.exif_orientation,
    )
    confusion = result.pop("confusion")
    short = {name: value for name, value in result.items() if name != "per_class"}
    print(json.dumps(short, indent=2))
    if arguments.output_dir:
        folder = pathlib.Path(arguments.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**vars(arguments), **result, "confusion": confusion.tolist()}, indent=2)
        (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        plot_confusion(confusion, source.class_names, folder / "confusion.png")


def _split(text):
    """The name of a split, or the share that is held out of the split to train on."""
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
