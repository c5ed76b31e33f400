"""The training and the evaluation step: accumulation, XLA, masked rows, LoRA, the average."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.optimizer import make_optimizer
from keras_crossvit.training.lora import copy_weights, enable_attention_lora
from keras_crossvit.training.memory import activation_bytes, variable_bytes
from keras_crossvit.training.steps import Totals
from keras_crossvit.training.steps.base import row_sums
from keras_crossvit.training.steps.losses import RowLoss
from keras_crossvit.training.steps.tensorflow import TensorFlowStep
from tests.base import (
    model_with_a_spare_weight,
    pixels,
    run_python,
    small_config,
    small_model,
    values_of,
)

pytestmark = pytest.mark.slow

LABELS = np.eye(5, dtype="float32")[[0, 1, 2, 3, 4, 0, 1, 2]]
IMAGES = pixels(8)


def make_step(lora_rank=None, model=None, **options):
    names = "accumulation_steps", "steps_per_call", "jit_compile"
    arguments = {name: options.pop(name) for name in names if name in options}
    config = small_config(num_stages=1)
    model = small_model(config, classifier_activation=None) if model is None else model
    if lora_rank:
        enable_attention_lora(model, lora_rank)
    optimizer = make_optimizer(model, 1e-3, 0.05, total_steps=4, warmup_steps=0, **options)
    return TensorFlowStep(model, optimizer, tf.distribute.get_strategy(), **arguments)


def batches(*arrays):
    return tf.data.Dataset.from_tensors(tuple(map(tf.constant, arrays))).repeat()


def train(step, steps=2, count=1):
    feed = step.feed(batches(IMAGES, LABELS))
    sums = [np.asarray(step.train(feed, count)) for _ in range(steps // count)]
    return values_of(step.model), np.concatenate(sums)


def arrays_of(step):
    """What a checkpoint would hold."""
    return {name: np.array(tensor) for name, tensor in step.snapshot().items()}


@pytest.fixture(scope="module")
def plain():
    return train(make_step(optimizer="sgd"))


def test_sums_are_those_of_the_rows(plain):
    """Loss, top-1, top-5 and rows of the first step, from the logits before it."""
    logits = make_step().model.predict_on_batch(IMAGES)
    losses = np.log(np.exp(logits).sum(1)) - (logits * LABELS).sum(1)
    right = (logits.argmax(1) == LABELS.argmax(1)).sum()
    np.testing.assert_allclose(plain[1][0], [losses.sum(), right, 8, 8, 0], rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"accumulation_steps": 4}, {"jit_compile": True}, {"steps_per_call": 2}]
)
def test_it_trains_alike(plain, options):
    step = make_step(optimizer="sgd", **options)
    weights, sums = train(step, count=options.get("steps_per_call", 1))
    for ours, theirs in zip(weights, plain[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(sums, plain[1], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_weight_without_a_gradient_stays_in_micro_batches_too():
    """As a fusion of one's own may have one: it is neither moved nor decayed."""
    found = []
    for parts in (1, 4):
        keras.utils.set_random_seed(0)
        step = make_step(model=model_with_a_spare_weight(), accumulation_steps=parts)
        found.append(train(step))
    for ours, theirs in zip(found[1][0], found[0][0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_array_equal(found[1][0][0], np.ones(3))
    assert np.abs(found[1][0][1]).max() > 1e-4
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)


def test_unreadable_rows_count_for_nothing():
    """Rows without a label, as for unreadable images, are in no sum and in no gradient."""
    labels = LABELS.copy()
    labels[3:] = 0
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
    losses = RowLoss()(labels, logits)
    np.testing.assert_array_equal(losses[3:], 0)
    sums = np.asarray(row_sums(labels, logits, losses))
    assert sums[3] == 3
    assert sums[1] == (logits.argmax(1) == LABELS.argmax(1))[:3].sum()


def test_top_five_of_more_classes():
    logits = np.array([[6, 5, 4, 3, 2, 1, 0]] * 7, "float32")
    labels = np.eye(7, dtype="float32")
    sums = np.asarray(row_sums(labels, logits, np.ones(7, "float32")))
    np.testing.assert_array_equal(sums, [7, 1, 5, 7])
    sums = np.asarray(row_sums(labels, np.zeros((7, 7), "float32"), np.ones(7, "float32")))
    np.testing.assert_array_equal(sums, [7, 1, 5, 7])  # among equal ones the first come first


def test_rows_without_finite_logits_are_wrong():
    logits = np.array([[6, 5, 4, 3, 2, 1, 0]] * 4, "float32")
    logits[1], logits[2, 6], logits[3, 0] = np.nan, np.nan, np.inf
    labels = np.eye(7, dtype="float32")[[0, 0, 0, 0]]
    sums = np.asarray(row_sums(labels, logits, np.ones(4, "float32")))
    np.testing.assert_array_equal(sums, [4, 1, 1, 4])


def test_rows_of_weight_zero_count_for_nothing():
    step = make_step()
    weights = np.array([1, 1, 1, 1, 1, 0, 0, 0], "float32")
    sums = np.asarray(step.evaluate(step.feed(batches(IMAGES, LABELS, weights))))
    logits = step.model.predict_on_batch(IMAGES)[:5]
    losses = np.log(np.exp(logits).sum(1)) - (logits * LABELS[:5]).sum(1)
    right = (logits.argmax(1) == LABELS[:5].argmax(1)).sum()
    np.testing.assert_allclose(sums, [losses.sum(), right, 5, 5, 0], rtol=1e-5)
    totals = Totals()
    totals.add(sums)
    assert totals.means["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert totals.means["accuracy"] == pytest.approx(right / 5)
    sums = step.evaluate(step.feed(batches(IMAGES, LABELS, weights)), stop=True)
    np.testing.assert_allclose(sums, [losses.sum(), right, 5, 5, 1], rtol=1e-5)


def test_it_evaluates_by_the_average_and_trains_by_the_weights():
    step = make_step(ema_momentum=0.5)
    train(step, 3)
    trained = values_of(step.model)
    everything = IMAGES, LABELS, np.ones(8, "float32")
    loss = np.asarray(step.evaluate(step.feed(batches(*everything))))[0]
    for variable, value in zip(step.model.weights, trained, strict=True):
        np.testing.assert_array_equal(variable, value)
    own = RowLoss()(LABELS, step.model.predict_on_batch(IMAGES)).numpy().sum()
    assert abs(loss - own) > 1e-4
    step.put_average_in_place()
    average = RowLoss()(LABELS, step.model.predict_on_batch(IMAGES)).numpy().sum()
    assert loss == pytest.approx(average, rel=1e-5)


def dense_step(**options):
    """A step of a model of one layer, 3 to 2, after two updates, with a moving average."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    optimizer = make_optimizer(model, 0.1, 0.0, 9, 0, ema_momentum=0.5)
    for _ in range(2):
        optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables])
    return TensorFlowStep(model, optimizer, tf.distribute.get_strategy(), **options)


def test_the_average_is_in_place_only_in_its_context():
    """Training goes on with the weights, even if the model could not be saved."""
    step = dense_step()
    trained = values_of(step.model)
    averages = [np.array(average) for average in step.average.averages]
    assert np.abs(averages[0] - trained[0]).min() > 0.01
    with contextlib.suppress(OSError), step.averaged():
        for variable, average in zip(step.model.weights, averages, strict=True):
            np.testing.assert_array_equal(variable, average)
        raise OSError
    for variable, value in zip(step.model.weights, trained, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_weights_that_change_in_the_averages_context_stay():
    step = dense_step()
    averages = [np.array(average) for average in step.average.averages]
    with step.averaged():
        step.model.weights[0].assign_add(np.ones_like(averages[0]))
    np.testing.assert_array_equal(step.model.weights[0], averages[0] + 1)
    np.testing.assert_array_equal(step.model.weights[1], averages[1])


def test_what_a_hook_freezes_is_still_in_the_state():
    """Which is written before the run ends with an error."""
    step = dense_step()
    trained, names = values_of(step.model), arrays_of(step).keys()
    average = np.array(step.average.averages[0])
    step.check_trained()
    with step.averaged():
        step.model.layers[-1].trainable = False
    for variable, value in zip(step.model.weights, trained, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert arrays_of(step).keys() == names
    step.put_average_in_place()
    np.testing.assert_array_equal(step.model.weights[0], average)
    message = r"`on_epoch` must neither freeze .* Received: 0 trainable variables, before it 2$"
    with pytest.raises(ValueError, match=message):
        step.check_trained()


@pytest.mark.main_job
def test_what_a_hook_freezes_is_still_in_the_state_on_jax():
    code = """if True:
        import keras
        import numpy as np
        from keras_crossvit.training import make_optimizer
        from keras_crossvit.training.steps import step_class

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        optimizer = make_optimizer(model, 0.1, 0.0, 9, 0, ema_momentum=0.5)
        for _ in range(2):
            optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables])
        step, trained = step_class()(model, optimizer, None), np.array(model.weights[0])
        names = step.snapshot().keys()
        with step.averaged():
            model.layers[-1].trainable = False
        print(np.array_equal(model.weights[0], trained), step.snapshot().keys() == names)
        step.put_average_in_place()
        print(np.array_equal(model.weights[0], optimizer.averages[0]))
    """
    assert run_python(code, KERAS_BACKEND="jax").split() == ["True"] * 3


def test_class_weights_are_for_training_alone():
    step = dense_step(loss=RowLoss(class_weights=np.array([3.0, 5.0], "float32")))
    labels, logits = np.eye(2, dtype="float32"), np.array([[1, 0], [3, 0]], "float32")
    sums = step.held_out_sums(labels, logits, np.ones(2, "float32"), np.zeros((), "float32"))
    expected = np.log1p(np.exp(-1)) + np.log1p(np.exp(3))
    np.testing.assert_allclose(sums, [expected, 1, 2, 2, 0], rtol=1e-5)


def test_state_is_everything():
    """Two steps, or one, a copy of the state into another model, and the second there."""
    options = {"ema_momentum": 0.9, "optimizer": "adamw"}

    def make():
        keras.utils.set_random_seed(0)
        config = small_config(num_stages=1)
        model = small_model(config, classifier_activation=None, drop_path_rate=0.5, drop_rate=0.1)
        return make_step(model=model, **options)

    straight, first, second = make(), make(), make()
    train(straight, 2)
    train(first, 1)
    second.restore(arrays_of(first), "a test")
    train(second, 1)
    expected, ours = arrays_of(straight), arrays_of(second)
    assert len(expected) > 3 * len(straight.model.trainable_variables)
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_a_snapshot_stays_as_it_is_while_training_goes_on():
    step = make_step()
    snapshot, before = step.snapshot(), arrays_of(step)
    train(step, 1)
    for name, tensor in snapshot.items():
        np.testing.assert_array_equal(tensor, before[name], err_msg=name)
    changed = arrays_of(step)
    assert any(np.any(changed[name] != value) for name, value in before.items())


def test_mixed_float16_holds_the_optimizer_once():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        step = make_step()
    finally:
        keras.config.set_dtype_policy("float32")
    train(step, 2)
    captured = arrays_of(step)
    trained = len(step.model.trainable_variables)
    assert sum("momentum" in name for name in captured) == trained
    assert sum("velocity" in name for name in captured) == trained
    assert [v for name, v in captured.items() if name.endswith("step_counter")] == [2]


def test_a_run_may_go_on_with_or_without_mixed_float16():
    plain = make_step(ema_momentum=0.9)
    train(plain, 2)
    before = arrays_of(plain)
    keras.config.set_dtype_policy("mixed_float16")
    scaled = make_step(ema_momentum=0.9)
    keras.config.set_dtype_policy("float32")
    scaled.restore(before, "run")
    assert [int(x.iterations) for x in (scaled.optimizer, scaled.optimizer.inner_optimizer)] == [
        2,
        2,
    ]
    assert float(scaled.optimizer.dynamic_scale) == 2**15
    again = make_step(ema_momentum=0.9)
    again.restore(arrays_of(scaled), "run")
    after = arrays_of(again)
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    scaled.set_iterations(3)
    assert int(scaled.optimizer.inner_optimizer.iterations) == 3


def test_state_of_another_model_is_refused_and_nothing_changes():
    step = make_step()
    before, state = values_of(step.model), arrays_of(step)
    name = next(iter(state))
    wrong = {**state, name: np.zeros((1, 2, 3), "float32")}
    with pytest.raises(ValueError, match="1 variables differ"):
        step.restore(wrong, "a test")
    with pytest.raises(ValueError, match="of the same model and optimizer"):
        step.restore({name: state[name]}, "a test")
    for value, variable in zip(before, values_of(step.model), strict=True):
        np.testing.assert_array_equal(value, variable)


def test_lora_trains_low_rank_changes_and_is_merged():
    config = small_config(num_stages=1)
    step = make_step(lora_rank=2)
    classifier = step.model
    before = {v.path: np.array(v) for v in classifier.weights}
    train(step)
    moved = {v.path for v in classifier.weights if np.abs(np.array(v) - before[v.path]).max() > 0}
    assert any("lora_kernel_b" in path for path in moved)
    assert all("lora" in path or "norm" in path or "head" in path for path in moved)
    target = small_model(config, classifier_activation=None)
    copy_weights(classifier, target)
    assert not any("lora" in v.path for v in target.weights)
    np.testing.assert_allclose(
        target.predict_on_batch(IMAGES), classifier.predict_on_batch(IMAGES), atol=1e-4
    )


def test_lora_is_merged_in_float32_in_mixed_precision_too():
    keras.config.set_dtype_policy("mixed_bfloat16")
    config, draw = small_config(num_stages=1), np.random.default_rng(0)
    model, target = small_model(config), small_model(config)
    enable_attention_lora(model, 2)
    found = {v.path: v for v in model.weights}
    for path, variable in found.items():
        if "lora_kernel_b" in path:
            variable.assign(draw.normal(size=variable.shape))
    copy_weights(model, target)
    layer = target.branches["small"].blocks[0][0].attention.proj
    a, b = (np.array(found[f"{layer.path}/lora_kernel_{x}"]) for x in "ab")
    expected = np.array(found[f"{layer.path}/kernel"]) + a @ b  # alpha is the rank
    np.testing.assert_allclose(layer.kernel, expected, atol=1e-7)


def test_memory_of_variables_and_activations():
    step = make_step()
    parameters = step.model.count_params()
    # Weights, gradients and two moments in float32, and some counters.
    expected = pytest.approx(16 * parameters, rel=0.01)
    assert variable_bytes(step.model, step.optimizer) == expected
    image = activation_bytes(small_model())
    # At least what goes into the dense layers of the transformer blocks.
    assert image > 4 * (25 * 16 + 2 * 4 * 24) * 2
    less = activation_bytes(small_model(gradient_checkpointing=True))
    assert less < image


# What a TPU's compiler takes, out of all that a step may use.
ARITHMETIC = """
Add AddN AddV2 Any ArgMax AssignAddVariableOp AssignSubVariableOp AssignVariableOp
BatchMatMulV2 BiasAdd BiasAddGrad Bitcast BitwiseAnd BroadcastGradientArgs BroadcastTo Cast
ConcatOffset ConcatV2 Const Conv2D Conv2DBackpropFilter Conv2DBackpropInput Cos DivNoNan Einsum
Equal Erf Exp ExpandDims Fill FloorDiv FloorMod GatherV2 Greater GreaterEqual Identity
IdentityN InvertPermutation IsFinite Less LessEqual LogSoftmax LogicalAnd LogicalNot LogicalOr
MatMul Max Maximum Mean Min Minimum Mul Neg NoOp NotEqual OneHot Pack Pad PartitionedCall
Placeholder Pow Prod ReadVariableOp RealDiv Reciprocal Relu Reshape ResourceApplyAdam Rsqrt
RsqrtGrad Select SelectV2 Shape ShapeN Sin Size Slice Softmax SoftmaxCrossEntropyWithLogits
Split SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall
StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomUniformV2 StatelessWhile
StopGradient StridedSlice StridedSliceGrad Sub Sum Tanh TensorListFromTensor TensorListGetItem
TensorListReserve TensorListSetItem TensorListStack Tile Transpose Unpack While
XlaDynamicUpdateSlice ZerosLike
"""


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_whole_step_is_arithmetic_with_static_shapes(accumulation_steps):
    """No host callback, no list of unknown length: what XLA takes on a TPU, too."""
    model = small_model(small_config(num_stages=1), classifier_activation=None, drop_path_rate=0.2)
    step = make_step(
        model=model, accumulation_steps=accumulation_steps, jit_compile=True, clip_norm=1.0
    )
    arguments = tf.constant(IMAGES), tf.constant(LABELS), tf.constant(0.0)
    function = step.replica_step.get_concrete_function(*arguments)
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    used = {"Placeholder" if node.op == "_Arg" else node.op for node in nodes}
    assert used - set(ARITHMETIC.split()) == set()
    # Side by side, micro-batches take nearly the memory of the whole batch.
    at_a_time = [n.attr["parallel_iterations"].i for n in nodes if n.op == "While"]
    assert at_a_time == [1] * (accumulation_steps > 1)
    assert "ResourceApplyAdam" in used
    assert all(t.shape.is_fully_defined() for t in function.outputs)
    hlo = step.replica_step.experimental_get_compiler_ir(*arguments)(stage="hlo")
    assert "callback" not in hlo


def test_several_replicas_are_not_compiled():
    class Two:
        num_replicas_in_sync = 2

    step = make_step()
    with pytest.raises(ValueError, match="`jit_compile` must be false where several replicas"):
        TensorFlowStep(step.model, step.optimizer, Two(), jit_compile=True)
