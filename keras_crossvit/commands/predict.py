"""Classifies image files and folders of them, and writes a table.

    crossvit predict runs/mine pictures --output table.csv
    crossvit predict hf://timm/crossvit_15_dagger_240.in1k a.jpg b.png --output table.json

Each file gets a row: its path, the classes with the highest scores and, with --branches, the top
class of each branch's own head, or why the file cannot be read. A folder stands for all files in
it and its subfolders whose names end like those of images.
"""

from keras_crossvit.commands.shared import add_reading, errors_in_one_line, find_model, parser_of
from keras_crossvit.common.checks import escaped
from keras_crossvit.prediction import check_table, classify_files, find_images, write_table


def main() -> None:
    """Predicts as the process's arguments say."""
    parser = parser_of(__doc__, "predict with")
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="image files and folders of them")
    add("--output", required=True, metavar="TABLE", help="the file to write, .csv or .json")
    add("--top-k", type=int, default=5, help="number of classes in a row")
    add("--batch-size", type=int, default=32, help="images at a time")
    add("--branches", action="store_true", help="also the answer of each branch's own head")
    add_reading(parser)
    arguments = parser.parse_intermixed_args()  # PATHs may follow an option
    if arguments.model is not None and arguments.source is not None:
        # argparse takes the first path for MODEL where --model names the model.
        arguments.paths.insert(0, arguments.source)
        arguments.source = None
    with errors_in_one_line():
        check_table(arguments.output)  # before the model runs, which may take hours
        files = find_images(arguments.paths)
        found = find_model(arguments)
        rows = classify_files(
            found.model,
            files,
            top_k=arguments.top_k,
            batch_size=arguments.batch_size,
            branches=arguments.branches,
            **found.reading(arguments),
        )
        write_table(rows, arguments.output)
    broken = sum("error" in row for row in rows)
    count = f"{len(rows)} file" + ("s" if len(rows) > 1 else "")
    print(f"{escaped(arguments.output)}: {count}" + (f", {broken} unreadable" if broken else ""))
