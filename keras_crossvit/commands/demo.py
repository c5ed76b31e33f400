"""Starts a web page on which to try a model.

    crossvit demo runs/mine
    crossvit demo runs/mine/model.keras --folder pictures --port 8000
    crossvit demo hf://timm/crossvit_15_dagger_240.in1k

Drop a photograph on it: the page shows the classes with the highest scores, what each branch's own
head says and, over the photograph, where the class tokens look. The page is served to this machine
only, unless --host says otherwise, and contacts no other. Stop it with Ctrl-C.
"""

from keras_crossvit.commands.shared import add_reading, errors_in_one_line, find_model, parser_of
from keras_crossvit.export.checks import check_packages
from keras_crossvit.prediction import find_images


def main() -> None:
    """Serves as the process's arguments say, until interrupted."""
    parser = parser_of(__doc__, "try")
    add = parser.add_argument
    add("--folder", metavar="PATH", help="image files that the page offers to classify")
    add("--host", default="127.0.0.1", help="0.0.0.0 to be reached from other machines")
    add("--port", type=int, default=7860)
    add("--top-k", type=int, default=5, help="classes on the page")
    add_reading(parser)
    arguments = parser.parse_args()
    with errors_in_one_line():
        check_packages("the page", "gradio", "matplotlib", extra="demo")
        from keras_crossvit.demo.answers import Answerer
        from keras_crossvit.demo.page import make_page, start

        files = find_images([arguments.folder]) if arguments.folder else []
        found = find_model(arguments)
        if arguments.folder and found.model.takes_pairs:
            raise ValueError(
                "`--folder` must be left out for a model that takes an image for each branch. "
                f"Received: --folder {arguments.folder}"
            )
        answerer = Answerer(found.model, top_k=arguments.top_k, **found.reading(arguments))
        page = make_page(answerer, files)
        print(f"{found.model.name}: {start(page, arguments.host, arguments.port)}", flush=True)
    page.block_thread()
