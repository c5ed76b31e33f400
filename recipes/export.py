r"""Exports a model for serving and for other runtimes.

    python recipes/export.py --model crossvit_15_dagger --weights imagenet --output-dir export
    python recipes/export.py --model crossvit_digits --weights runs/digits/model.keras \
        --classes 10 --crop-ratio 1 --output-dir export --format litert,onnx --dataset digits

`saved_model` writes OUTPUT-DIR/VERSION/ for TensorFlow Serving, the others a file each.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_crossvit as kc
from keras_crossvit.common.pixels import default_crop_ratio
from keras_crossvit.export.cli import parse_export
from keras_crossvit.export.formats import export, top1


def main():
    arguments = parse_export(__doc__)
    config = kc.CrossViTConfig.preset(arguments.model)
    model = kc.CrossViT(config, weights=arguments.weights, classes=arguments.classes)
    size = model.input_shape[1:]
    crop_ratio = arguments.crop_ratio or default_crop_ratio(size)
    samples = batches = None
    if arguments.dataset:
        # What only this needs is imported here: an export does without KerasCV.
        from keras_crossvit.data.pipeline import evaluation_batches
        from keras_crossvit.data.sources import open_source

        source = open_source(arguments.dataset, arguments.data_dir)
        reading = crop_ratio, None, arguments.exif_orientation
        batches = evaluation_batches(source.validation, arguments.classes, size, 50, *reading)
        if arguments.calibrate:
            training = (source.train, arguments.classes, size, arguments.calibrate)
            samples = next(iter(evaluation_batches(*training, *reading)))[0].numpy()
    for name in arguments.format:
        path = export(
            model,
            name,
            arguments.output_dir,
            int8=arguments.int8,
            samples=samples,
            labels=arguments.labels,
            top_k=arguments.top_k,
            crop_ratio=arguments.crop_ratio,
            exif_orientation=arguments.exif_orientation,
        )
        print(f"{name}: {path}" + (f" ({top1(path, batches):.2%} top-1)" if batches else ""))


if __name__ == "__main__":
    main()
