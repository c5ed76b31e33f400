"""The page, in Gradio: a photograph or a folder in, what the model says and looks at out."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from keras_crossvit.common.checks import check_between
from keras_crossvit.demo.answers import MAX_FILE_MIB, Answerer, to_show

MAX_SHOWN = 256  # images of a folder on the page
_BOTH = "both"
_READING = {
    _BOTH: ("small", "large"),
    "small reads large": ("small",),
    "large reads small": ("large",),
}
_SAFE = ["download", "fullscreen"]
_BUSY: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}  # one at a time


def make_page(answerer: Answerer, files: Sequence[str | os.PathLike[str]] = ()) -> gr.Blocks:
    """The page.

    Args:
        answerer: What computes the answers.
        files: Image files that the page offers to classify, e.g. those of a folder.

    Returns:
        The page, for `start`.
    """
    model = answerer.model
    height, width = model.images["large"].shape[1:3]
    # Uploaded files are deleted after an hour.
    with gr.Blocks(title=model.name, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {model.name}\nclasses: {model.classes}, pixels: {height} × {width}")
        with gr.Tab("Photograph"):
            _photograph(answerer)
        if not model.takes_pairs:
            with gr.Tab("Folder"):
                _folder(answerer, files)
    return page


def start(page: gr.Blocks, host: str, port: int) -> str:
    """Starts serving a page in a thread, and returns its address.

    Raises:
        ValueError: If `port` is not a port number, or `host` is neither a name nor an address.
        OSError: If the address is taken, or not this machine's.
    """
    check_between("port", port, 1, 65_535)
    if ":" in host and not host.startswith("["):
        raise ValueError(
            "`host` must be a name, an IPv4 address or, in brackets such as those of [::1], an "
            f"IPv6 address. Received: host={host!r}"
        )
    try:
        with _without_proxy():
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=MAX_FILE_MIB * 2**20,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                footer_links=[],
                run_history=False,  # its page offers to save what was classified elsewhere
            )
    except OSError as error:
        raise OSError(
            "`host` and `port` must be a free address of this machine. "
            f"Received: host={host!r}, port={port}"
        ) from error
    return address


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """A context without proxies: none reaches this machine, where Gradio looks for its page."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    os.environ.update(dict.fromkeys(before, "*"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _photograph(answerer):
    """The tab for one photograph, or for the two that a model takes."""
    pairs = answerer.model.takes_pairs
    titles = [f"{x} branch's photograph" for x in ("Small", "Large")] if pairs else ["Photograph"]
    state = gr.State(None, time_to_live=3600)
    with gr.Row():
        with gr.Column():
            files = [gr.File(label=title, height=140) for title in titles]
            problem = gr.Textbox(
                label="Not classified", elem_id="problem", visible=False, interactive=False
            )
            seen = [
                gr.Image(
                    label=f"{title} as the model sees it",
                    height=280,
                    interactive=False,
                    format="png",
                    buttons=_SAFE,
                )
                for title in titles
            ]
        with gr.Column():
            labels = _labels(answerer)
    classes = gr.State(())

    def answer(*paths):
        empty = [None] * (len(seen) + len(labels))
        if None in paths:
            return [None, (), gr.Textbox(visible=False), *empty]
        try:
            found = answerer.answer(*paths)
        except ValueError as error:
            return [None, (), gr.Textbox(str(error), visible=True), *empty]
        pictures = [to_show(pixels) for pixels in found.pixels]
        scores = [found.scores[name] for name in labels]
        return [found, found.classes, gr.Textbox(visible=False), *pictures, *scores]

    outputs = [state, classes, problem, *seen, *labels.values()]
    answered = gr.on([file.change for file in files], answer, files, outputs, **_BUSY)
    _attention(answerer, state, answered)
    if not pairs:
        _evidence(answerer, state, answered)


def _labels(answerer):
    """`{"model": ..., "small": ..., "large": ...}`: the classes with bars."""
    labels = {"model": gr.Label(label="Model", num_top_classes=answerer.top_k)}
    if len(answerer.model.branches) > 1:
        with gr.Row():
            for branch in ("small", "large"):
                label = f"Head of the {branch} branch"
                labels[branch] = gr.Label(label=label, num_top_classes=answerer.top_k)
    return labels


def _attention(answerer, state, answered):
    """Which patches of the other branch a class token reads."""
    gr.Markdown("### What each class token reads of the other branch")
    if answerer.why_no_attention:
        gr.Markdown(answerer.why_no_attention)
        return
    gr.Markdown("The share of its attention that a patch gets, on average over the heads.")
    last = len(answerer.model.stages) - 1
    with gr.Row():
        stage = gr.Slider(0, max(last, 1), last, step=1, label="Stage", visible=last > 0)
        reading = gr.Radio(list(_READING), value=_BOTH, label="Class token")
    picture = _figure("Cross-attention")

    def draw(answer, stage, reading):
        if answer is None:
            return None
        return answerer.attention_picture(answer, int(stage), _READING[reading])

    inputs = [state, stage, reading]
    answered.then(draw, inputs, picture, **_BUSY)
    changes = [stage.change, reading.input]
    gr.on(changes, draw, inputs, picture, trigger_mode="always_last", **_BUSY)


def _evidence(answerer, state, answered):
    """Grad-CAM."""
    gr.Markdown("### Evidence for a class\nGrad-CAM, in units of the class's logit.")
    chosen = gr.Dropdown([], label="Class", interactive=True)
    picture = _figure("Grad-CAM")

    def offer(answer):
        found = () if answer is None else answer.classes
        choices = [(answerer.names[index], index) for index in found]
        return gr.Dropdown(choices, value=found[0] if found else None)

    def draw(answer, index):
        if answer is None or index is None:
            return None
        return answerer.evidence_picture(answer, index)

    offered = answered.then(offer, state, chosen, **_BUSY)
    offered.then(draw, [state, chosen], picture, **_BUSY)
    chosen.input(draw, [state, chosen], picture, trigger_mode="always_last", **_BUSY)


def _folder(answerer, files):
    """The tab for several photographs."""
    with gr.Row():
        given = gr.File(label="Photographs", file_count="multiple", height=140)
        button = gr.Button(f"Classify the folder's {len(files)} files", visible=bool(files))
    gallery = gr.Gallery(
        label="Gallery", show_label=False, columns=5, fit_columns=False, buttons=_SAFE
    )
    problems = gr.Textbox(label="Notes", visible=False, interactive=False, lines=2)

    def classify(paths):
        paths = paths or []
        notes = []
        if len(paths) > MAX_SHOWN:
            notes = [
                f"The first {MAX_SHOWN} of {len(paths)} are shown; `crossvit predict` writes a "
                "table of all."
            ]
        shown, found = [], []
        try:
            for shown, found in answerer.gallery(paths[:MAX_SHOWN]):
                yield shown, _notes(notes + found)
        except ValueError as error:
            yield shown, _notes([*notes, *found, str(error)])
        if not paths:
            yield shown, _notes([])

    given.change(classify, given, [gallery, problems], **_BUSY)

    def classify_folder():
        yield from classify(files)

    button.click(classify_folder, None, [gallery, problems], **_BUSY)


def _notes(sentences):
    return gr.Textbox("\n".join(sentences), visible=bool(sentences))


def _figure(name):
    """An image with its own titles, without Gradio's button that shares it outside."""
    return gr.Image(
        elem_id=name.lower(),
        label=name,
        show_label=False,
        interactive=False,
        format="png",
        buttons=_SAFE,
    )
