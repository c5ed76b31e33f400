"""Comparisons with timm: what becomes of the figures, timm's failures, a small real run."""

import contextlib
import time
import types

import numpy as np
import pytest

from benchmarks import candidates, compare, engines
from benchmarks.models import cost_of
from benchmarks.turns import worker
from tests.benchmarks import processes

pytestmark = pytest.mark.slow

MACHINE = {"float32": [1.0, 100.0, 100.0, 100.0], "bfloat16": [1.0, 200.0, 200.0, 200.0]}


@pytest.fixture(autouse=True)
def known_processor(monkeypatch):
    monkeypatch.setattr(compare, "processor", lambda: "Some Processor")


def turns_of(monkeypatch, rows):
    """Makes `worker` give known figures: `{function: {name: values of its turns}}`.

    `timm_inference` has a row for each variant, its last argument.
    """
    asked = []

    @contextlib.contextmanager
    def known(make, *arguments, required=True):
        row = rows[make][arguments[-1]] if make is compare.timm_inference else rows[make]
        left = {name: iter(values) for name, values in row.items()}
        asked.append((make, arguments, required))
        yield lambda name: next(left[name], None) if name in left else None

    monkeypatch.setattr(compare, "worker", known)
    return asked


def test_inference_is_compared_with_the_fastest_of_timms_variants(monkeypatch, model):
    ours = {
        "forward": [1.0, 20.0, 30.0, 40.0],  # the first turn does not count
        "predict": [1.0, 10.0, 27.0, 40.0],
        "evaluate": [1.0, 20.0, 24.0, 36.0],
    }
    timm = {
        "eager": {"forward": [99.0, 10.0, 10.0, 10.0]},
        "compiled": {"forward": [1.0, 20.0, 20.0, 10.0]},
        "openvino": {"forward": [1.0, 25.0, 60.0, 30.0]},
    }
    rows = {compare.our_inference: ours, compare.timm_inference: timm, compare.machine: MACHINE}
    asked = turns_of(monkeypatch, rows)
    monkeypatch.setattr(compare, "make_model", {"x": model}.get)
    monkeypatch.setattr(compare, "cost_of", lambda model: {"macs": 1000 * cost_of(model)["macs"]})
    found = compare.compare_inference("x", 4, repeats=3, jit_compile=True)
    gmacs = 1000 * cost_of(model)["macs"] / 1e9
    assert found == {
        "images_per_second": 30.0,
        "spread": (20.0, 40.0),
        "predict_share": 0.9,
        "evaluate_share": 0.9,
        "processor": "Some Processor",
        "gmacs_per_second": {"float32": 100.0, "bfloat16": 200.0},
        "matrix_product_share": round(0.3 * gmacs, 3),
        "timm_images_per_second": {"eager": 10.0, "compiled": 20.0, "openvino": 30.0},
        "ratio": 0.8,
        "ratios": (0.5, 1.33),
        "pytorch_ratio": 1.5,
        "batch_size": 4,
    }
    assert asked == [
        (compare.machine, (), True),
        (compare.our_inference, ("x", 4, "float32", True, "tensorflow"), True),
        (compare.timm_inference, ("x", 4, "float32", "eager"), False),
        (compare.timm_inference, ("x", 4, "float32", "compiled"), False),
        (compare.timm_inference, ("x", 4, "float32", "openvino"), False),
    ]


def test_shares_in_bfloat16_are_of_its_own_rate(monkeypatch, model):
    rows = {compare.our_inference: {"forward": [20.0] * 4}, compare.machine: MACHINE}
    rows[compare.timm_inference] = {key: {} for key in ("eager", "compiled", "cast", "openvino")}
    turns_of(monkeypatch, rows)
    monkeypatch.setattr(compare, "make_model", lambda name: model)
    monkeypatch.setattr(compare, "cost_of", lambda model: {"macs": 5e9})
    found = compare.compare_inference("x", 4, "bfloat16", repeats=3, engine="openvino")
    assert found["matrix_product_share"] == 5 * 20 / 200
    assert (found["predict_share"], found["ratio"], found["pytorch_ratio"]) == (None,) * 3


def test_variants_of_timm_that_fail_leave_their_columns_empty(monkeypatch, model, capfd):
    """With processes: one variant raises in its first turn, the others and ours run on."""
    monkeypatch.setattr(compare, "make_model", lambda name: model)
    monkeypatch.setattr(compare, "our_inference", processes.fast)
    monkeypatch.setattr(compare, "machine", processes.fast)
    monkeypatch.setattr(compare, "timm_inference", processes.fails_compiled)
    found = compare.compare_inference("x", 4, "bfloat16", repeats=2)
    assert found["images_per_second"] == 2.0
    assert found["timm_images_per_second"] == {
        "eager": 1.0,
        "compiled": None,
        "cast": 1.0,
        "openvino": 1.0,
    }
    assert (found["ratio"], found["ratios"]) == (2.0, (2.0, 2.0))
    said = capfd.readouterr().err
    assert "LookupError: no such thing as a compiler" in said
    assert said.count("its process ended with exit code 1. Its figures stay empty.") == 1

    monkeypatch.setattr(compare, "timm_inference", processes.fails)
    found = compare.compare_inference("x", 4, repeats=1)
    assert (found["images_per_second"], found["spread"]) == (2.0, (2.0, 2.0))
    assert (found["timm_images_per_second"], found["ratio"], found["ratios"]) == (None,) * 3


def test_a_timm_that_fails_in_training(monkeypatch):
    monkeypatch.setattr(compare, "our_training", processes.fast)
    monkeypatch.setattr(compare, "machine", processes.fast)
    monkeypatch.setattr(compare, "timm_training", processes.is_killed_in_the_second_turn)
    found = compare.compare_training("crossvit_9", 4, repeats=3)
    assert (found["images_per_second"], found["peak_memory_gb"]) == (2.0, 2.0)
    assert found["timm_first_step_seconds"] is None
    assert (found["timm_images_per_second"], found["ratio"], found["ratios"]) == (None,) * 3


def test_unknown_models_are_refused_before_a_process_starts(monkeypatch):
    monkeypatch.setattr(compare, "worker", None)
    for function in (
        compare.compare_inference,
        compare.compare_training,
        compare.compare_first_step,
    ):
        with pytest.raises(ValueError, match=r"`name` must .* Received: name='crossvit_16'"):
            function("crossvit_16", 4)


def test_training_and_first_steps(monkeypatch):
    ours = {
        "build_seconds": [2.0],
        "first_step_seconds": [9.0, 9.0],
        "peak_memory_gb": [1.0, 2.5],
        "images_per_second": [1.0, 6.0, 8.0],
    }
    timm = {
        "first_step_seconds": [3.0, 3.0],
        "peak_memory_gb": [1.0, 2.0],
        "images_per_second": [1.0, 4.0, 4.0],
    }
    rows = {compare.our_training: ours, compare.timm_training: timm, compare.machine: MACHINE}
    turns_of(monkeypatch, rows)
    monkeypatch.setattr(compare, "make_model", lambda name: None)
    monkeypatch.setattr(compare, "cost_of", lambda model: {"macs": 2e9})
    imports = iter([0.1, 0.3])
    monkeypatch.setattr(compare, "import_seconds", lambda engine: next(imports))
    assert compare.compare_training("crossvit_9", 4, repeats=2) == {
        "first_step_seconds": 9.0,
        "peak_memory_gb": 2.5,
        "timm_first_step_seconds": 3.0,
        "timm_peak_memory_gb": 2.0,
        "images_per_second": 7.0,
        "spread": (6.0, 8.0),
        "processor": "Some Processor",
        "gmacs_per_second": {"float32": 100.0, "bfloat16": 200.0},
        "matrix_product_share": 3 * 2 * 7 / 100,
        "timm_images_per_second": 4.0,
        "ratio": 1.75,
        "ratios": (1.5, 2.0),
        "batch_size": 4,
    }
    assert compare.compare_first_step("crossvit_9", 4, repeats=2) == {
        "first_step_seconds": 9.0,
        "spread": (9.0, 9.0),
        "timm_first_step_seconds": 3.0,
        "import_seconds": 0.2,
        "build_seconds": 2.0,
        "batch_size": 4,
    }
    turns_of(monkeypatch, {**rows, compare.timm_training: {}})
    found = compare.compare_training("crossvit_9", 4, repeats=1)
    assert (found["timm_images_per_second"], found["ratio"]) == (None, None)


def test_names_of_timm():
    names = [candidates.timm_name(x) for x in ("crossvit_9", "crossvit_15_dagger@408")]
    assert names == ["crossvit_9_240", "crossvit_15_dagger_408"]
    names = [candidates.timm_name(x) for x in ("deit_small", "deit_base@384", "deit_tiny@32")]
    # timm has no such deit_tiny, so that its columns stay empty.
    assert names == ["deit_small_patch16_224", "deit_base_patch16_384", "deit_tiny_patch16_32"]


def test_the_import_is_measured_with_the_engines_backend(monkeypatch):
    def run(command, env, **options):
        return types.SimpleNamespace(stdout={"jax": "0.25"}[env["KERAS_BACKEND"]])

    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(candidates.subprocess, "run", run)
    assert candidates.import_seconds("jax") == 0.25


def test_an_import_that_fails_says_why(capfd):
    message = "`import keras_crossvit` failed with KERAS_BACKEND=jaxx: its process ended with exit"
    with pytest.raises(RuntimeError, match=message):
        candidates.import_seconds("jaxx")
    assert "jaxx" in capfd.readouterr().err


def test_a_real_run_in_small(monkeypatch):
    """Ours alone: timm has no such model, even where it is installed."""
    monkeypatch.setattr(compare, "machine", processes.fast)
    found = compare.compare_training("crossvit_digits", 2, repeats=1)
    assert found["images_per_second"] > 0
    assert found["first_step_seconds"] > 0
    assert 0.1 < found["peak_memory_gb"] < 20
    assert found["timm_images_per_second"] is None
    assert candidates.import_seconds("tensorflow") > 0
    monkeypatch.setattr(engines, "_PRODUCT", 64)
    for functions, names in (
        (engines.machine(), {"float32", "bfloat16"}),
        (
            engines.our_inference("crossvit_digits", 1, "float32", False, "tensorflow"),
            {"forward", "predict", "evaluate"},
        ),
        (engines.our_inference("crossvit_digits", 1, "bfloat16", False, "openvino"), {"forward"}),
        (
            engines.our_inference("crossvit_digits", 1, "float32", False, "onnxruntime"),
            {"forward"},
        ),
    ):
        rates = {name: run() for name, run in functions.items()}
        assert rates.keys() == names
        assert min(rates.values()) > 0


def test_on_jax_the_forward_pass_runs_again_after_evaluate():
    """Compiled, `evaluate` deletes the arrays that the variables had before."""
    pytest.importorskip("jax", reason="jax is not installed")
    with worker(engines.our_inference, "deit_tiny@32", 2, "float32", False, "jax") as ours:
        assert all(ours(key) > 0 for key in ("forward", "evaluate", "forward"))


def test_tensorflow_is_waited_for(monkeypatch):
    """Here on a CPU that, as a GPU does, computes on after a call has returned."""
    import tensorflow as tf

    done = []

    def slow(x, *others, **options):
        def late(value):
            time.sleep(0.2)
            done.append(value.shape)
            return value

        return tf.numpy_function(late, [x], x.dtype)

    monkeypatch.setattr(engines, "_PRODUCT", 8)
    monkeypatch.setattr(tf, "matmul", slow)
    tf.config.experimental.set_synchronous_execution(False)
    try:
        forward = engines._of_tensorflow(slow, np.zeros((2, 3), "float32"), jit_compile=False)
        forward()
        assert done == [(2, 3)]
        engines.machine()["float32"]()
        assert done == [(2, 3), (8, 8)]
    finally:
        tf.config.experimental.set_synchronous_execution(True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("onnxruntime", "bfloat16", False),
            "`precision` must be one of float32 with engine='onn",
        ),
        (("openvino", "mixed_bfloat16", False), "`precision` must be one of float32, bfloat16, "),
        (("jax", "int8", False), "`precision` must be a dtype policy of Keras"),
        (("openvino", "float32", True), "`jit_compile` must be false with engine='openvino'"),
    ],
)
def test_engines_say_what_they_cannot(arguments, message):
    with pytest.raises(ValueError, match=message):
        engines.check_engine(*arguments)
    with pytest.raises(ValueError, match="`engine` must be one of tensorflow, jax to train"):
        engines.check_training_engine("torch")
