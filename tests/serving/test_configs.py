"""The files in recipes/serving, read by the messages that the servers read them into."""

import pathlib
import re

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from tests import base

FOLDER = base.ROOT / "recipes" / "serving"
TYPES = descriptor_pb2.FieldDescriptorProto


def message(name, **fields):
    """A message that tensorflow-serving-api lacks: `{field: (type, repeated)}`, per its .proto."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package="test", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    made = file.message_type.add(name=name)
    for number, (field, (kind, repeated)) in enumerate(fields.items(), start=1):
        label = TYPES.LABEL_REPEATED if repeated else TYPES.LABEL_OPTIONAL
        added = made.field.add(name=field, number=number, label=label)
        if isinstance(kind, int):
            added.type = kind
        else:
            added.type, added.type_name = TYPES.TYPE_MESSAGE, f".{kind}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))


def parse(file, into):
    return text_format.Parse((FOLDER / file).read_text(), into)


def test_models():
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    (config,) = parse("models.config", ModelServerConfig()).model_config_list.config
    assert config.name == "crossvit"  # the client's default
    assert config.base_path == "/models/crossvit"  # where the compose file mounts the export
    assert config.model_platform == "tensorflow"
    assert config.model_version_policy.latest.num_versions == 1


def test_batching():
    number = Int64Value.DESCRIPTOR.full_name
    parameters = parse(
        "batching.config",
        message(
            "BatchingParameters",
            max_batch_size=(number, False),
            batch_timeout_micros=(number, False),
            max_enqueued_batches=(number, False),
            num_batch_threads=(number, False),
            thread_pool_name=(StringValue.DESCRIPTOR.full_name, False),
            allowed_batch_sizes=(TYPES.TYPE_INT64, True),
            pad_variable_length_inputs=(TYPES.TYPE_BOOL, False),
        )(),
    )
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value == 8  # the client's --batch-size
    assert parameters.batch_timeout_micros.value == 5000
    assert parameters.num_batch_threads.value >= 1
    assert parameters.max_enqueued_batches.value == 100


def test_monitoring():
    prometheus = message(
        "PrometheusConfig", enable=(TYPES.TYPE_BOOL, False), path=(TYPES.TYPE_STRING, False)
    )
    config = parse(
        "monitoring.config",
        message("MonitoringConfig", prometheus_config=(prometheus.DESCRIPTOR.full_name, False))(),
    )
    assert config.prometheus_config.enable
    path = config.prometheus_config.path
    assert path in (FOLDER / "README.md").read_text()


def read_yaml(file):
    import yaml

    return yaml.safe_load((FOLDER / file).read_text())


@pytest.fixture(scope="module")
def services():
    return read_yaml("docker-compose.yml")["services"]


@pytest.fixture(scope="module")
def service(services):
    return services["serving"]


@pytest.fixture(scope="module")
def triton(services):
    return services["triton"]


def test_image_is_pinned(service):
    from importlib import metadata

    name, version = service["image"].split(":")
    assert name == "tensorflow/serving"
    # The server reads SavedModels of its own TensorFlow version and of older ones.
    major_and_minor = version.split(".")[:2]
    assert metadata.version("tensorflow").split(".")[:2] == major_and_minor
    assert metadata.version("tensorflow-serving-api").split(".")[:2] == major_and_minor


def test_what_the_server_is_told_is_mounted(service):
    mounts = dict(
        re.match(r"(.+?):(/[^:]+):ro$", volume).groups() for volume in service["volumes"]
    )
    assert mounts.pop("${EXPORT_DIR:-../../export}") == "/models/crossvit"
    assert all((FOLDER / source).is_file() for source in mounts)
    told = {flag.partition("=")[2] for flag in service["command"] if "_file=" in flag}
    assert told == set(mounts.values())
    assert "--enable_batching=true" in service["command"]
    assert {pathlib.PurePath(path).name for path in told} == {
        path.name for path in FOLDER.glob("*.config")
    }


def test_ports_are_for_this_machine_only(service):
    assert sorted(service["ports"]) == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]


def test_triton(services, triton):
    """Beside TensorFlow Serving, but only when it is asked for."""
    assert set(services) == {"serving", "triton"}
    assert triton["profiles"] == ["triton"]
    # Its ONNX Runtime reads the export: tests/export/test_triton.py.
    assert triton["image"] == "nvcr.io/nvidia/tritonserver:26.07-py3"
    (mount,) = triton["volumes"]
    assert mount == "${TRITON_DIR:-../../export_triton}:/models:ro"
    assert triton["command"][:2] == ["tritonserver", "--model-repository=/models"]
    assert "profiles" not in services["serving"]


def test_ports_of_triton_are_for_this_machine_only(triton):
    assert triton["ports"] == [f"127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002)]


class TestKServe:
    """The structure: both were found valid against the 2 MB schema of InferenceService."""

    @pytest.mark.parametrize(
        ("file", "model_format", "runtime", "protocol", "service"),
        [
            ("kserve-v1.yaml", "tensorflow", "kserve-tensorflow-serving", "v1", "serving"),
            ("kserve-v2.yaml", "triton", "kserve-tritonserver", "v2", "triton"),
        ],
    )
    def test_fields(self, services, file, model_format, runtime, protocol, service):
        read = read_yaml(file)
        assert set(read) == {"apiVersion", "kind", "metadata", "spec"}
        assert read["apiVersion"] == "serving.kserve.io/v1beta1"
        assert read["kind"] == "InferenceService"
        assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", read["metadata"]["name"])
        model = read["spec"]["predictor"]["model"]
        assert read["spec"] == {"predictor": {"model": model}}
        assert model.pop("storageUri").startswith("s3://")
        resources = model.pop("resources")
        assert set(resources) == {"requests", "limits"}
        assert all(set(kinds) == {"cpu", "memory"} for kinds in resources.values())
        assert model == {
            "modelFormat": {"name": model_format, "version": "2"},
            "runtime": runtime,
            "runtimeVersion": services[service]["image"].partition(":")[2],
            "protocolVersion": protocol,
        }
