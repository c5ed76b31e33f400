"""Exports a model for serving.

    python recipes/export.py --model crossvit_15_dagger --weights imagenet --output-dir export
    python recipes/export.py --model crossvit_digits --weights runs/digits/model.keras \
        --classes 10 --crop-ratio 1 --output-dir export

`saved_model` writes OUTPUT-DIR/VERSION/ for TensorFlow Serving.
"""

import argparse
import pathlib

import keras_crossvit as kc


def saved_model(model, arguments, labels):
    return kc.export_saved_model(
        model, arguments.output_dir, labels, arguments.top_k, crop_ratio=arguments.crop_ratio
    )


FORMATS = {"saved_model": saved_model}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=kc.presets(), required=True)
    parser.add_argument("--weights", required=True, help="imagenet, imagenet-408 or a file")
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--format", default="saved_model", help=f"of {','.join(FORMATS)}")
    parser.add_argument("--labels", help="file with the name of a class per line")
    parser.add_argument("--classes", type=int, help="by default as many as labels, or 1000")
    parser.add_argument("--top-k", type=int, default=5, help="classes in an answer")
    parser.add_argument("--crop-ratio", type=float, help="of the evaluation transform")
    arguments = parser.parse_args()
    formats = arguments.format.split(",")
    if not set(formats) <= set(FORMATS):
        parser.error(f"--format must be of {','.join(FORMATS)}. Received: {arguments.format}")
    labels = None
    if arguments.labels:
        labels = pathlib.Path(arguments.labels).read_text(encoding="utf-8").splitlines()
    classes = arguments.classes or (1000 if labels is None else len(labels))
    config = kc.CrossViTConfig.preset(arguments.model)
    model = kc.CrossViT(config, weights=arguments.weights, classes=classes)
    for name in formats:
        print(f"{name}: {FORMATS[name](model, arguments, labels)}")


if __name__ == "__main__":
    main()
