"""Package of keras_crossvit; the tools are configured in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
source = (here / "keras_crossvit" / "__init__.py").read_text(encoding="utf-8")

PILLOW = "pillow>=10"  # `keras.utils.load_img` reads files with it, and Keras does not require it
# docs/versions.md says which of these versions have been tested.
TENSORFLOW = ["tensorflow>=2.20,<2.22", PILLOW]
TENSORFLOW_GPU = ["tensorflow[and-cuda]>=2.20,<2.22", PILLOW]
TENSORFLOW_CPU = ["tensorflow-cpu>=2.20,<2.22", PILLOW]  # reads the images of JAX's training
TOOLS = [  # what training needs besides the backend
    "keras-cv>=0.9,<0.10",
    "tensorflow-datasets>=4.9.10,<5",
    "filelock>=3.12",  # one process in the folder of a run
    "fsspec>=2023.5",  # files in buckets
    "google-crc32c>=1.5",  # the checksums of TFRecord files
    "array-record>=0.5",  # the files that tensorflow-datasets reads by number
    "importlib_resources>=6",  # tensorflow-datasets imports it without requiring it
    "scikit-learn>=1.5",  # the digits of `--dataset digits`
    "matplotlib>=3.8",
    "tensorboard>=2.19",
]
TRAIN = [*TENSORFLOW, *TOOLS]
RUNTIMES = [
    "ai-edge-litert>=2.3",
    "onnx>=1.23",
    "onnxruntime>=1.31",
    "openvino>=2026.4",
    "tensorflow-serving-api>=2.20,<2.22",  # gRPC to a server
    "tf2onnx>=1.17,<2",
]
DEMO = [*TENSORFLOW, "gradio>=6.31,<7", "matplotlib>=3.8"]
# Separate from `RUNTIMES`, since it holds protobuf and ml_dtypes at older versions.
TRITON = ["tritonclient[grpc]>=2.60", PILLOW]
GCS = "gcsfs>=2023.5"  # fsspec's gs://
INT8 = ["nncf>=3.4"]  # OpenVINO's; separate, since it brings scikit-learn and bounds NumPy
DOCS = [
    *TENSORFLOW,  # the API reference imports the package
    "furo==2025.12.19",
    "myst-parser==5.2.0",
    "sphinx==9.0.4",  # the last one for Python 3.11
]
TEST = [
    *TRAIN,
    *RUNTIMES,
    *DEMO,
    *TRITON,
    *INT8,
    GCS,
    *DOCS,
    "build==1.6.1",
    "jax[cpu]>=0.7.2",
    "mypy==2.4.1",
    "playwright>=1.50",  # drives the system's Chromium
    "pre-commit==4.7.0",
    "psutil>=5.9",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff==0.17.5",
    "setuptools>=77",  # builds without isolation
    "twine==7.0.0",
    "uv==0.13.9",  # an empty environment in seconds, where pip takes a minute and a half
]

setup(
    name="keras-crossvit",
    version=re.search(r'__version__ = "(.+)"', source).group(1),
    description="CrossViT, the cross-attention multi-scale vision transformer, for Keras 3",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "cross-attention",
        "crossvit",
        "image classification",
        "keras",
        "tensorflow",
        "vision transformer",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    entry_points={"console_scripts": ["crossvit=crossvit_command:main"]},
    py_modules=["crossvit_command"],
    packages=find_packages(include=["keras_crossvit", "keras_crossvit.*"]),
    package_data={"keras_crossvit": ["py.typed", "models/imagenet_labels.txt"]},
    install_requires=[
        "keras>=3.13,<3.16",
        "numpy>=2",
        "huggingface_hub>=0.30",
        "safetensors>=0.4.3",
    ],
    extras_require={
        "tensorflow": TENSORFLOW,
        "gpu": [*TENSORFLOW_GPU, *TOOLS],
        "jax": ["jax>=0.7.2", PILLOW],
        "jax-gpu": ["jax[cuda12]>=0.7.2", *TENSORFLOW_CPU, *TOOLS],
        "tpu": ["jax[tpu]>=0.7.2", *TENSORFLOW_CPU, *TOOLS, GCS],
        "gcs": [GCS],
        "torch": ["torch>=2.13", PILLOW],
        "train": TRAIN,
        "runtimes": RUNTIMES,
        "demo": DEMO,
        "triton": TRITON,
        "int8": INT8,
        "docs": DOCS,
        "test": TEST,
    },
)
