"""Figure 1 and the speeds in it; nothing here depends on how fast the machine is."""

import numpy as np
import pytest

from benchmarks import figure1


class Clock:
    """A clock that models advance when they predict."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def model(self, name, seconds):
        clock = self

        class Model:
            input_shape = (None, 8, 8, 3)

            def predict_on_batch(self, images):
                assert images.shape == (4, 8, 8, 3)
                clock.now += seconds[sum(entry == name for entry in clock.log)]
                clock.log.append(name)

        return Model()


def test_inference_of_several_models_takes_turns(monkeypatch):
    """Medians and spreads of known times; the first batch of each does not count."""
    clock = Clock()
    monkeypatch.setattr(figure1.time, "perf_counter", lambda: clock.now)
    models = {
        "a": clock.model("a", [100, 1, 2, 4]),
        "b": clock.model("b", [100, 8, 8, 8]),
    }
    rates = figure1.measure_inference(models, batch_size=4, repeats=3)
    assert clock.log == ["a", "b"] * 4
    assert rates == {
        "a": {"images_per_second": 2.0, "spread": (1.0, 4.0), "batch_size": 4},
        "b": {"images_per_second": 0.5, "spread": (0.5, 0.5), "batch_size": 4},
    }


def figure_row(model, top1, rate):
    return {
        "model": model,
        "top1": top1,
        "macs": 2e9,
        "parameters": 25_000_000,
        "images_per_second": rate,
        "spread": (rate - 1, rate + 1),
    }


def test_figure_1(tmp_path):
    rows = [
        figure_row("crossvit_9", 73.9, 10.0),
        figure_row("ResNet101", 76.7, 5.0),
        figure_row("crossvit_digits", None, 90.0),
    ]
    figure = figure1.plot_speed(rows, tmp_path / "speed.png")
    by_cost, by_speed = figure.axes
    assert [text.get_text() for text in by_speed.texts] == ["crossvit_9", "ResNet101"]
    circles = np.concatenate(
        [c.get_offsets() for c in by_speed.collections if len(c.get_offsets())]
    )
    np.testing.assert_allclose(circles, [[10, 73.9], [5, 76.7]])
    np.testing.assert_allclose(by_speed.lines[1].get_xdata(), [4, 6])
    assert {c.get_sizes()[0] for c in by_speed.collections} == {150.0}
    assert by_cost.collections[0].get_offsets()[0].tolist() == [2.0, 73.9]
    legend = [text.get_text() for text in by_cost.get_legend().get_texts()]
    assert legend == ["CrossViT", "ResNet"]
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="`rows` must hold a model whose accuracy"):
        figure1.plot_speed(rows[2:], tmp_path / "none.png")
