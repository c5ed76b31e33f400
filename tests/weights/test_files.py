"""Files that are read: PyTorch's, and those that are not checkpoints."""

import os
import pickle
import sys

import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.weights.checkpoint import model_state
from tests import base
from tests.weights.states import assert_same_weights, written, zeroed


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", ["text", "empty", "cut"])
def test_file_that_is_no_whole_checkpoint(content, suffix, model, state, tmp_path):
    if suffix == ".pth":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        torch.save({key: torch.from_numpy(a) for key, a in state.items()}, tmp_path / "whole.pth")
        whole = (tmp_path / "whole.pth").read_bytes()
    else:
        whole = written(state, tmp_path, "whole.safetensors").read_bytes()
    contents = {"text": b"not found", "empty": b"", "cut": whole[: len(whole) // 2]}
    (tmp_path / f"{content}{suffix}").write_bytes(contents[content])
    before = base.values_of(model)
    with pytest.raises(ValueError, match=rf"`source` must be a complete .*Received: .*{content}"):
        kc.load_checkpoint(model, tmp_path / f"{content}{suffix}")
    assert_same_weights(model.weights, before)


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {"x": "text"}}, {"x": 3.0}])
def test_pytorch_file_without_a_state_dict(content, model, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="must hold a state dict of tensors"):
        kc.load_checkpoint(model, tmp_path / "other.pth")


@pytest.mark.parametrize("kind", ["requires_grad", "parameter", "bfloat16"])
def test_pytorch_tensors_of_other_kinds_load(kind, fresh_model, state, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    change = {
        "requires_grad": lambda tensor: tensor.requires_grad_(),
        "parameter": torch.nn.Parameter,
        "bfloat16": lambda tensor: tensor.bfloat16(),
    }[kind]
    tensors = {name: change(torch.from_numpy(array.copy())) for name, array in state.items()}
    torch.save(tensors, tmp_path / "weights.pth")
    kc.load_checkpoint(zeroed(fresh_model), tmp_path / "weights.pth")
    loaded = model_state(fresh_model)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor.detach().float().numpy())


WRONG_TENSORS = {
    "sparse": (lambda t: t.to_sparse(), "where norm.0.bias cannot be read: can't convert Sparse"),
    "meta": (lambda t: t.to("meta"), "where norm.0.bias cannot be read: can't convert meta"),
    "conjugate": (lambda t: (t + 1j).conj(), "where norm.0.bias cannot be read: Can't call"),
    "complex": (lambda t: t + 1j, "where 1 are not: norm.0.bias (complex64)"),
    "integer": (lambda t: t.long(), "where 1 are not: norm.0.bias (int64)"),
    "NaN": (lambda t: t * float("nan"), "where 1 are not: norm.0.bias (NaN"),
    "beyond float32": (lambda t: t.double() * 0 + 1e39, "where 1 are not: norm.0.bias (NaN"),
    "scalar": (lambda t: t[0], "where 1 shapes differ: norm.0.bias () for (16,)"),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_wrong_pytorch_tensor_is_named_and_changes_nothing(case, model, state, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    change, message = WRONG_TENSORS[case]
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    tensors["norm.0.bias"] = change(tensors["norm.0.bias"])
    torch.save(tensors, tmp_path / "weights.pth")
    before = base.values_of(model)
    with pytest.raises(ValueError, match=r"Received: .*weights\.pth, where ") as error:
        kc.load_checkpoint(model, tmp_path / "weights.pth")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert_same_weights(model.weights, before)


def test_pytorch_keys_that_are_no_names(model, state, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save({**tensors, 3: torch.zeros(1)}, tmp_path / "weights.pth")
    before = base.values_of(model)
    with pytest.raises(ValueError, match=r"keys are names.*weights\.pth, with the keys 3$"):
        kc.load_checkpoint(model, tmp_path / "weights.pth")
    assert_same_weights(model.weights, before)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_pickle_with_code_is_refused_and_not_run(writer, model, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    content = {"model": Evil(tmp_path / "was_run")}
    if writer == "torch":
        torch.save(content, tmp_path / "evil.pth")
    else:
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(content))
    before = base.values_of(model)
    with pytest.raises(ValueError, match="must be a complete PyTorch checkpoint"):
        kc.load_checkpoint(model, tmp_path / "evil.pth")
    assert not (tmp_path / "was_run").exists()
    assert_same_weights(model.weights, before)


def test_pytorch_file_without_torch_says_what_to_install(model, tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="needs torch"):
        kc.load_checkpoint(model, tmp_path / "weights.pth")
