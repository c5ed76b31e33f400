"""A model of a Triton repository, loaded and run as its `config.pbtxt` says."""

import pathlib

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

_TYPES = {model_config_pb2.TYPE_FP32: ("tensor(float)", np.float32)}


class RefusedError(Exception):
    """A request that Triton refuses as an invalid argument, with the beginning of its message."""


class TritonModel:
    """The newest version of a model.

    Args:
        folder: The model's folder in the repository.
    """

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.name = folder.name
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        self.config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert self.config.backend == "onnxruntime"
        assert self.config.name in ("", self.name)
        version = max(
            (p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name)
        )
        self._session = onnxruntime.InferenceSession(version / "model.onnx")
        self._check(self._session.get_inputs(), self.config.input)
        self._check(self._session.get_outputs(), self.config.output)
        self._labels = {
            output.name: (folder / output.label_filename).read_bytes().decode().split("\n")
            for output in self.config.output
        }
        for warmup in self.config.model_warmup:
            inputs = {
                name: np.zeros([warmup.batch_size, *value.dims], _TYPES[value.data_type][1])
                for name, value in warmup.inputs.items()
            }
            self.infer(inputs)

    def _check(self, tensors, configured):
        """The file's tensors are as configured, with a free number of images first."""
        found = {tensor.name: (tensor.type, tensor.shape[1:]) for tensor in tensors}
        assert found == {c.name: (_TYPES[c.data_type][0], list(c.dims)) for c in configured}
        assert not any(isinstance(tensor.shape[0], int) for tensor in tensors)

    def infer(self, inputs):
        """`{name: array}` to `{name: array}`, the first axis being the images."""
        if inputs.keys() != {known.name for known in self.config.input}:
            raise RefusedError(f"unexpected inference input, got {sorted(inputs)}")
        for known in self.config.input:
            shape = list(inputs[known.name].shape)
            if inputs[known.name].dtype != _TYPES[known.data_type][1]:
                raise RefusedError(
                    f"inference input '{known.name}' data-type is not as configured"
                )
            if shape[1:] != list(known.dims):
                raise RefusedError(
                    f"unexpected shape for input '{known.name}' for model '{self.name}'. "
                    f"Expected {[-1, *known.dims]}, got {shape}."
                )
            if shape[0] > self.config.max_batch_size:
                raise RefusedError(
                    f"inference request batch-size must be <= {self.config.max_batch_size} "
                    f"for '{self.name}'"
                )
        names = [output.name for output in self.config.output]
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def classify(self, name, values, count):
        """The classification extension: `value:index:label`, bytes `(N, count)`."""
        order = np.argsort(-values, axis=-1, kind="stable")[:, :count]
        labels = self._labels[name]
        answers = [
            [f"{row[index]:f}:{index}:{labels[index]}".encode() for index in best]
            for row, best in zip(values, order, strict=True)
        ]
        return np.array(answers, object)
