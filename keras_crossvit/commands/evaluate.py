r"""Evaluates a model on labelled images.

    crossvit evaluate runs/mine
    crossvit evaluate runs/mine/best.keras --dataset folder:pictures --output-dir evaluation
    crossvit evaluate --model crossvit_15_dagger --weights imagenet --dataset imagenet2012 \
        --data-dir DATA --branches --no-exif-orientation
    crossvit evaluate hf://timm/crossvit_15_dagger_240.in1k --dataset cifar10 --knn --linear-probe

Prints top-1 and top-5 or, for images with several labels, mean average precision, AUC and F1,
averaged over the classes. With --output-dir also writes `evaluation.json`, which has the figures
of each class, and, for images with one label, `confusion.png`.
`--knn` and `--linear-probe` train on the frozen features of the training split instead.
"""

import json

from keras_crossvit.commands.shared import (
    add_data,
    add_reading,
    data_values,
    errors_in_one_line,
    find_data,
    find_model,
    parser_of,
    run_recipe,
)
from keras_crossvit.common.checks import check_folder
from keras_crossvit.common.files import as_json, write_json
from keras_crossvit.common.pixels import crop_ratio_for
from keras_crossvit.data.pipeline import labels_in_one_line
from keras_crossvit.evaluation import evaluate, plot_confusion
from keras_crossvit.models.inputs import image_shape
from keras_crossvit.probes import probe


def main() -> None:
    """Evaluates as the process's arguments say."""
    arguments = _parse()
    with errors_in_one_line():
        folder = arguments.output_dir
        folder = None if folder is None else check_folder("--output-dir", folder)
        probes = _probes(arguments)
        run_recipe(arguments)
        if arguments.model is not None:
            source = find_data(arguments, {}, bool(probes))
            if arguments.classes is None:
                arguments.classes = len(source.class_names)
            found = find_model(arguments)
        else:
            found = find_model(arguments)
            source = find_data(arguments, found.values, bool(probes))
        source = source if probes else source.with_classes(found.model.labels)
        reading = {"batch_size": arguments.batch_size, **found.reading(arguments)}
        with labels_in_one_line(source.name):
            result = _measure(arguments, found.model, source, probes, reading)
        ratio = crop_ratio_for(image_shape(found.model), reading["crop_ratio"])
        used = {**reading, "crop_ratio": ratio}
        used |= data_values(arguments, found.values)
        _report(result, folder, {**vars(arguments), **used}, source.class_names)


def _parse():
    parser = parser_of(__doc__, "evaluate", classes="as many as the data have")
    add = parser.add_argument
    add_data(parser, "what to evaluate on; by default the run's")
    add("--branches", action="store_true", help="also each branch's own head")
    add("--knn", action="store_true", help="20 nearest neighbours among the training features")
    add("--linear-probe", action="store_true", help="logistic regression on training features")
    add("--batch-size", type=int, default=64, help="images at a time")
    add("--input-size", type=int, help="of --model; by default the preset's")
    add_reading(parser)
    add(
        "--output-dir",
        help="where to write evaluation.json and, for images with one label, confusion.png",
    )
    return parser.parse_args()


def _probes(arguments):
    probes = [name for name in ("knn", "linear_probe") if getattr(arguments, name)]
    if probes and arguments.branches:
        raise ValueError(
            "`--branches` must be left out with --knn and --linear-probe, which measure the "
            "features of both branches together. Received: --branches, "
            f"{', '.join('--' + name.replace('_', '-') for name in probes)}"
        )
    return probes


def _measure(arguments, model, source, probes, reading):
    if probes:
        return probe(model, source, probes, **reading)
    names = source.class_names
    return evaluate(model, source.validation, names, branches=arguments.branches, **reading)


def _report(result, folder, arguments, class_names):
    """Writes the result to the folder, if any, with what it was measured by, and prints it."""
    confusion = result.pop("confusion", None)
    short = {k: v for k, v in result.items() if k not in ("per_class", "thresholds")}
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            values = {**arguments, **result}
            if confusion is not None:
                values["confusion"] = confusion.tolist()
            write_json(folder / "evaluation.json", values)
            if confusion is not None:
                plot_confusion(confusion, class_names, folder / "confusion.png")
    finally:  # the one must not depend on the other: a disk may be full, and a pipe closed
        print(json.dumps(as_json(short), indent=2))
