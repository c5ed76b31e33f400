"""All devices, processes and backends train alike; a lost worker comes back."""

import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.export import load_exported
from keras_crossvit.training import strategy
from keras_crossvit.training.strategy import asks_others, make_strategy, strategy_from_environment
from tests.base import JAX_XLA_FLAGS, pixels, run_python
from tests.training.processes import (
    cluster,
    finish,
    free_ports,
    run,
    started,
    wait_for,
    weights,
)
from tests.training.tiny import MODEL

# 22 steps with everything on but drop path, whose draws each replica makes for itself. With SGD,
# since AdamW divides gradients by their size, and so makes their rounding just as large.
VALUES = {
    "output_dir": "run",
    "drop_path_rate": 0.0,
    "checkpoint_steps": 5,
    "optimizer": "sgd",
    "learning_rate": 0.05,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def values(folder):
    """The values of all runs: the same start on any backend, as each has its own initial draws."""
    model = kc.CrossViT(MODEL, weights=None, classes=10)
    model.save(folder / "start.keras")
    start = {"data_dir": str(folder / "data"), "weights": str(folder / "start.keras")}
    return {**VALUES, **start, "strategy": "none"}


@pytest.fixture(scope="module")
def alone(folder, values):
    """Weights of one process without a strategy, which has moved them far enough to tell."""
    run(folder / "alone", values, TINY_EXPORT="0")
    start = keras.saving.load_model(folder / "start.keras").weights
    result = weights(folder / "alone")
    moved = [np.abs(a - np.array(b)).max() for a, b in zip(result, start, strict=True)]
    assert np.median(moved) > 1e-3
    return result


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.main_job
def test_two_devices_are_one(folder, values, alone):
    here = folder / "mirrored"
    values = {**values, "strategy": "mirrored", "steps_per_call": 3, "accumulation_steps": 2}
    run(here, values, TINY_DEVICES="2", TINY_EXPORT="0")
    assert_same(weights(here), alone)


@pytest.mark.main_job
def test_two_workers_are_one_and_a_killed_chief_joins_again(folder, values, alone):
    """The chief is killed and restarted; the other restarts itself, and both go on."""
    ports, output_dir = free_ports(), str(folder / "workers" / "run")
    values = {**values, "output_dir": output_dir, "strategy": "multiworker"}
    chief, other = folder / "workers" / "0", folder / "workers" / "1"
    environments = [{"TF_CONFIG": cluster(n, ports), "TINY_EXPORT": "0"} for n in range(2)]
    checkpoints = folder / "workers" / "run" / "checkpoints"
    with started(other, values, **environments[1]) as second:
        with started(chief, values, **environments[0]) as first:
            wait_for(lambda: list(checkpoints.glob("step-*")), first, chief)
            first.send_signal(signal.SIGKILL)
            first.wait()
        with started(chief, values, **environments[0]) as first:
            output = finish(first, chief)
            others = finish(second, other)
    assert "A worker was lost" in others
    assert "Restart 1 of at most 10" in others
    assert "Going on after step" in output
    assert_same(weights(chief), alone)
    assert_same(weights(other), alone)
    assert sorted(path.name for path in other.iterdir()) == ["output.txt", "weights.npz"]


@pytest.mark.main_job
def test_missing_worker_is_named_and_given_up(folder, values):
    ports = free_ports()
    here, environment = folder / "missing", {"TF_CONFIG": cluster(0, ports)}
    values = {**values, "strategy": "multiworker", "worker_timeout": 3}
    output = run(here, values, status=-9, **environment)
    assert f"without localhost:{ports[1]}" in output
    assert "worker_timeout" in output


def jax(folder, name, values, **environment):
    environment = {"KERAS_BACKEND": "jax", "TINY_EXPORT": "0", **environment}
    return started(folder / name, values, **environment)


@pytest.mark.main_job
def test_what_jax_synced_outlives_the_next_step():
    code = """if True:
        import keras
        import numpy as np
        import tensorflow as tf
        from keras_crossvit.training.steps import step_class

        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.average_momentum = None  # as of those of make_optimizer
        optimizer.build(model.trainable_variables)
        step = step_class()(model, optimizer, None)
        images, labels = np.ones((4, 2), "float32"), np.eye(3, dtype="float32")[[0, 1, 1, 1]]
        feed = step.feed(tf.data.Dataset.from_tensors((images, labels)).repeat())
        step.train(feed, 1)
        step.sync()
        synced = [np.array(array) for array in step.arrays[0]]
        step.train(feed, 1)
        for variable, value in zip(model.trainable_variables, synced, strict=True):
            print(np.array_equal(variable, value))
    """
    assert run_python(code, KERAS_BACKEND="jax").split() == ["True", "True"]


@pytest.mark.main_job
def test_jax_trains_alike_and_its_export_serves(folder, values, alone):
    here = folder / "jax"
    with jax(folder, "jax", values, TINY_EXPORT="1") as process:
        finish(process, here)
    assert_same(weights(here), alone)
    model = keras.saving.load_model(here / "run" / "model.keras", compile=False)
    for variable, value in zip(model.weights, weights(here), strict=True):
        np.testing.assert_array_equal(variable, value)
    served = load_exported(here / "run" / "export" / "1")
    images = pixels(4)
    np.testing.assert_allclose(served(images), model.predict_on_batch(images), atol=1e-6)


@pytest.mark.main_job
def test_eight_devices_of_jax_are_one_also_when_preempted(folder, values, alone):
    """In two parts, with SIGTERM in between; with several steps per call."""
    here = folder / "eight"
    devices = f"{JAX_XLA_FLAGS} --xla_force_host_platform_device_count=8"
    values = {**values, "strategy": "data_parallel", "steps_per_call": 2}
    with jax(folder, "eight", values, XLA_FLAGS=devices, TINY_STOP="7") as process:
        output = finish(process, here, status=143)
    assert "SIGTERM after step" in output
    with jax(folder, "eight", values, XLA_FLAGS=devices) as process:
        assert "Going on after step" in finish(process, here)
    assert_same(weights(here), alone)


@pytest.mark.main_job
def test_two_processes_of_jax_are_one(folder, values, alone):
    ports = free_ports()
    environment = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": ",".join(f"localhost:{port}" for port in ports),
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    values = {**values, "strategy": "auto", "best": "val_accuracy"}
    with (
        jax(folder, "p0", values, **environment, KERAS_DISTRIBUTION_PROCESS_ID="0") as first,
        jax(folder, "p1", values, **environment, KERAS_DISTRIBUTION_PROCESS_ID="1") as second,
    ):
        finish(first, folder / "p0")
        assert "Waiting for the first process, which exports." in finish(second, folder / "p1")
    for name in ("p0", "p1"):
        assert_same(weights(folder / name), alone)
    best = keras.saving.load_model(folder / "p0" / "run" / "best.keras", compile=False)
    assert best.count_params() == sum(array.size for array in alone)
    assert sorted(path.name for path in (folder / "p1").iterdir()) == ["output.txt", "weights.npz"]


@pytest.mark.parametrize(
    ("environment", "processes"),
    [
        ({}, 1),
        ({"KERAS_DISTRIBUTION_NUM_PROCESSES": "3"}, 3),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 4),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, 2),
    ],
)
def test_processes_of_jax(environment, processes, monkeypatch):
    for name in ("KERAS_DISTRIBUTION_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert strategy._jax_processes() == processes


def test_replicas_draw_masks_of_their_own(tmp_path):
    """Two replicas drop different paths of the same images, and leave the seeds as one would."""
    code = """if True:
        import sys
        import numpy as np
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, devices)
        from keras_crossvit.training import make_optimizer, make_strategy
        from keras_crossvit.training.steps import step_class
        from tests.base import pixels, small_config, small_model

        def forward(name):
            strategy = make_strategy(name)
            with strategy.scope():
                config = small_config(num_stages=1)
                model = small_model(config, classifier_activation=None, drop_path_rate=0.5)
                optimizer = make_optimizer(model, 1e-3, 0.05, 10, 0)
                step = step_class()(model, optimizer, strategy)
            images = tf.constant(pixels(8))
            run = tf.function(lambda: strategy.run(step._forward, (images,)))
            logits = strategy.experimental_local_results(run())
            weights = {id(v) for v in model.non_trainable_weights}
            seeds = [v for v in model.non_trainable_variables if id(v) not in weights]
            draws = [int(np.array(seed)[1]) for seed in seeds]
            return [np.array(x) for x in logits], draws

        logits, draws = forward("mirrored")
        _, alone = forward("none")
        np.savez(sys.argv[1], first=logits[0], second=logits[1], draws=draws, alone=alone)
    """
    run_python(code, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        assert np.abs(found["first"] - found["second"]).max() > 0.01
        np.testing.assert_array_equal(found["draws"], found["alone"])
        assert found["draws"].min() > 0


def test_a_process_may_train_on_two_devices_more_than_once(tmp_path):
    """As a notebook does, with other values; also a model with a weight that has no gradient."""
    code = """if True:
        import sys
        import keras
        import numpy as np
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, devices)
        from keras_crossvit.training import make_optimizer, make_strategy
        from keras_crossvit.training.steps import step_class
        from tests.base import model_with_a_spare_weight, pixels

        def losses(name, policy, clip_norm):
            strategy = make_strategy(name)
            keras.config.set_dtype_policy(policy)
            with strategy.scope():
                model = model_with_a_spare_weight()
                optimizer = make_optimizer(model, 1e-3, 0.05, 10, 0, clip_norm=clip_norm)
                step = step_class()(model, optimizer, strategy)
            images, labels = pixels(8), np.eye(5, dtype="float32")[[0, 1, 2, 3, 4, 0, 1, 2]]
            rows = tf.data.Dataset.from_tensor_slices((images, labels)).repeat()
            feed = step.feed(rows.batch(8 // strategy.num_replicas_in_sync, True))
            return [float(np.asarray(step.train(feed, 1))[0, 0]) for _ in range(3)]

        runs = [("float32", 1.0), ("mixed_float16", None), ("float32", None)]
        found = [losses(name, *run) for run in runs for name in ("mirrored", "none")]
        np.savez(sys.argv[1], two=found[::2], one=found[1::2])
    """
    run_python(code, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        np.testing.assert_allclose(found["two"], found["one"], rtol=1e-3)
        assert (np.diff(found["one"]) < -0.01).all()


def test_a_backend_has_its_own_strategies():
    with pytest.raises(ValueError, match="'data_parallel', which needs KERAS_BACKEND=jax"):
        make_strategy("data_parallel")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "neither TF_CONFIG nor SLURM_STEP_NUM_TASKS"),
        ({"TF_CONFIG": '{"task": {}}'}, "`TF_CONFIG` must name the workers"),
        ({"TF_CONFIG": "{oops"}, "`TF_CONFIG` must name the workers"),
        ({"TF_CONFIG": '{"cluster": {"ps": ["a:1"]}}'}, "`TF_CONFIG` must name the workers"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "and which of them this process is"),
        ({"TF_CONFIG": cluster(2, (1, 2))}, "and which of them this process is"),
        ({"TF_CONFIG": cluster(-1, (1, 2))}, "and which of them this process is"),
        ({"TF_CONFIG": cluster(None, (1, 2))}, "and which of them this process is"),
        ({"TF_CONFIG": cluster(0, (1, 2), "chief")}, "and which of them this process is"),
    ],
)
def test_workers_without_addresses(environment, message, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        make_strategy("multiworker")


@pytest.mark.parametrize(
    ("task", "worker"), [(("chief", 0), 0), (("worker", 0), 1), (("worker", 1), 2)]
)
def test_a_chief_is_counted_before_the_workers(task, worker):
    cluster = tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type=task[0], task_id=task[1]
    )
    assert strategy._place_of(resolver) == (worker, ["a:1", "b:1", "c:1"])


@pytest.mark.parametrize(
    ("tasks", "gpus", "numbers"),
    [
        ("1(x4)", "0,1,2,3", [0, 1, 2, 3]),
        ("1", "4,5", [0, 1]),
        ("2(x4)", "0,1", None),
        ("1(x2),2", "0,1", None),
        ("1(x4)", None, None),
        (None, "0,1", None),
    ],
)
def test_one_task_of_a_machine_has_all_its_gpus_on_jax(tasks, gpus, numbers, monkeypatch):
    for name, value in (("SLURM_STEP_TASKS_PER_NODE", tasks), ("CUDA_VISIBLE_DEVICES", gpus)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert strategy._gpus_of_the_only_task() == numbers


def test_processes_of_jax_need_addresses(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match=r"`KERAS_DISTRIBUTION_JOB_ADDRESSES` and .* must be set"):
        strategy._named_processes()


@pytest.mark.parametrize(("name", "others"), [("auto", True), ("mirrored", False)])
def test_what_asks_other_machines(name, others, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster(0, (1, 2)))
    assert asks_others(name) is others


def test_no_tpu_here():
    with pytest.raises(ValueError, match='`strategy="tpu"` needs a TPU'):
        make_strategy("tpu")


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "none"),
        ({"TF_CONFIG": "{}"}, "multiworker"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "multiworker"),
        ({"SLURM_STEP_NUM_TASKS": "1"}, "none"),
        ({"TPU_NAME": "x"}, "tpu"),
    ],
)
def test_auto_takes_what_the_environment_speaks_for(environment, name, monkeypatch):
    for variable in ("TF_CONFIG", "TPU_NAME", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert strategy_from_environment() == name
