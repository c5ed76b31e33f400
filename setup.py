"""Package of keras_crossvit; the tools are set up in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
source = (here / "keras_crossvit" / "__init__.py").read_text(encoding="utf-8")

TENSORFLOW = ["tensorflow>=2.21,<2.22"]
TRAIN = [
    *TENSORFLOW,
    "keras-cv>=0.9,<0.10",
    "tensorflow-datasets>=4.9.10,<5",
    "google-crc32c>=1.5",  # the checksums of TFRecord files
    "array-record>=0.5",  # the files that tensorflow-datasets reads by number
    "importlib_resources>=6",  # tensorflow-datasets imports it without asking for it
    "scikit-learn>=1.5",  # the digits of `--dataset digits`
    "matplotlib>=3.8",
    "tensorboard>=2.19",
]
RUNTIMES = [
    "ai-edge-litert>=2.3",
    "onnx>=1.23",
    "onnxruntime>=1.31",
    "openvino>=2026.4",
    "tensorflow-serving-api>=2.21,<2.22",  # gRPC to a server
    "tf2onnx>=1.17,<2",
]
TEST = [
    *TRAIN,
    *RUNTIMES,
    "jax[cpu]>=0.10",
    "pillow>=10",
    "psutil>=5.9",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff==0.17.5",
]

setup(
    name="keras-crossvit",
    version=re.search(r'__version__ = "(.+)"', source).group(1),
    description="CrossViT, the cross-attention multi-scale vision transformer, for Keras 3",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["keras_crossvit", "keras_crossvit.*"]),
    install_requires=[
        "keras>=3.15,<4",
        "numpy>=2",
        "huggingface_hub>=0.30",
        "safetensors>=0.4.3",
    ],
    extras_require={
        "tensorflow": TENSORFLOW,
        "jax": ["jax>=0.10"],
        "torch": ["torch>=2.13"],
        "train": TRAIN,
        "runtimes": RUNTIMES,
        "test": TEST,
    },
)
