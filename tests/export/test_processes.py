"""The SavedModel in other processes, and the recipe that writes it."""

import itertools
import json
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_crossvit as kc
from keras_crossvit.data.images import decode, evaluation_transform
from keras_crossvit.export import load_exported
from tests import base
from tests.data_room.image_files import encoded
from tests.export.helpers import LABELS, picture, probabilities
from tests.reference import randomize

pytestmark = pytest.mark.slow

TF1_CLIENT = """
import json, sys
sys.modules["keras"] = sys.modules["keras_crossvit"] = None  # so that importing them fails
import numpy as np
import tensorflow.compat.v1 as tf

folder, data = sys.argv[1:]
data = np.load(data)
with tf.Session(graph=tf.Graph()) as session:
    signatures = tf.saved_model.loader.load(session, ["serve"], folder).signature_def

    def run(name, **inputs):
        signature = signatures[name]
        outputs = {key: tensor.name for key, tensor in signature.outputs.items()}
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        return session.run(outputs, feeds)

    answers = {
        "serving_default": run("serving_default", images=data["images"]),
        "features": run("features", images=data["images"]),
        "classify_bytes": run("classify_bytes", image_bytes=[b"bad", data["picture"].tobytes()]),
    }
answers["classify_bytes"]["classes"] = np.char.decode(
    answers["classify_bytes"]["classes"].astype("S"), "utf-8"
)
assert sys.modules["keras"] is None
print(json.dumps({name: {k: v.tolist() for k, v in a.items()} for name, a in answers.items()}))
"""


class TestOtherProcesses:
    def test_tf1_session_without_keras(self, classifier, export, signatures, tmp_path):
        images, file = base.pixels(), picture()
        np.savez(tmp_path / "data.npz", images=images, picture=np.frombuffer(file, "uint8"))
        answers = json.loads(base.run_python(TF1_CLIENT, export, tmp_path / "data.npz"))
        np.testing.assert_allclose(
            answers["serving_default"]["probabilities"],
            classifier.predict(images, verbose=0),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            answers["features"]["features"],
            signatures["features"](images=images)["features"],
            atol=1e-4,
        )
        expected = probabilities(classifier, [file])[0]
        order = np.argsort(-expected)[:3]
        assert answers["classify_bytes"]["indices"] == [[-1] * 3, order.tolist()]
        assert answers["classify_bytes"]["classes"] == [[""] * 3, [LABELS[i] for i in order]]
        np.testing.assert_allclose(
            answers["classify_bytes"]["scores"], [[0] * 3, expected[order]], atol=1e-5
        )

    def test_saved_model_cli(self, export):
        cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
        command = [cli, "show", "--dir", export, "--tag_set", "serve", "--all"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in (
            "signature_def['serving_default']",
            "signature_def['classify_bytes']",
            "signature_def['features']",
            "inputs['images'] tensor_info",
            "inputs['image_bytes'] tensor_info",
            "outputs['probabilities'] tensor_info",
            "outputs['classes'] tensor_info",
            "outputs['indices'] tensor_info",
            "outputs['scores'] tensor_info",
            "outputs['features'] tensor_info",
            "shape: (-1, 40, 40, 3)",
            "shape: (-1, 3)",
        ):
            assert line in shown, line

    def test_saved_model_cli_run(self, classifier, export, tmp_path):
        images = base.pixels(2)
        np.save(tmp_path / "images.npy", images)
        cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
        command = [cli, "run", "--dir", export, "--tag_set", "serve"]
        command += ["--signature_def", "serving_default", "--outdir", tmp_path]
        command += ["--inputs", f"images={tmp_path / 'images.npy'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        np.testing.assert_allclose(
            np.load(tmp_path / "probabilities.npy"),
            classifier.predict(images, verbose=0),
            atol=1e-5,
        )

    def test_other_backends_are_told_what_to_do(self, tmp_path):
        """Without TensorFlow the package imports, and the function says what it needs."""
        code = (
            "import sys; sys.modules['tensorflow'] = None\n"
            "from tests import base; import keras_crossvit as kc\n"
            "try: kc.export_saved_model(base.small_model(), sys.argv[1])\n"
            "except RuntimeError as error: print(error)"
        )
        said = base.run_python(code, tmp_path / "new", KERAS_BACKEND="jax")
        assert "needs the TensorFlow backend" in said
        assert "Received: the backend 'jax'" in said
        assert not (tmp_path / "new").exists()


class TestRecipe:
    def run(self, monkeypatch, *arguments):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        runpy.run_path(str(base.ROOT / "recipes" / "export.py"), run_name="__main__")

    def test_saved_model(self, tmp_path, monkeypatch, capsys):
        config = kc.CrossViTConfig.preset("crossvit_digits")
        model = kc.CrossViT(config, weights=None, classes=3)
        kc.save_checkpoint(model, tmp_path / "w.safetensors")
        (tmp_path / "labels.txt").write_text("cat\ndog\nÄffchen\n", encoding="utf-8")
        self.run(
            monkeypatch,
            *("--model", "crossvit_digits", "--weights", tmp_path / "w.safetensors"),
            *("--labels", tmp_path / "labels.txt", "--output-dir", tmp_path / "export"),
            *("--crop-ratio", 1, "--top-k", 2),
        )
        assert capsys.readouterr().out.endswith(f"saved_model: {tmp_path / 'export' / '1'}\n")
        loaded = tf.saved_model.load(tmp_path / "export" / "1")
        answer = loaded.signatures["classify_bytes"](image_bytes=tf.constant([picture()]))
        expected = probabilities(model, [picture()], crop_ratio=1.0)[0]
        order = np.argsort(-expected)[:2]
        np.testing.assert_allclose(answer["scores"][0], expected[order], atol=1e-5)
        assert [name.decode() for name in answer["classes"][0].numpy()] == [
            ["cat", "dog", "Äffchen"][index] for index in order
        ]

    def test_unknown_format(self, tmp_path, monkeypatch, capsys):
        with pytest.raises(SystemExit):
            self.run(
                monkeypatch,
                *("--model", "crossvit_9", "--weights", "imagenet"),
                *("--output-dir", tmp_path, "--format", "saved_model,tritn"),
            )
        said = capsys.readouterr().err
        assert "--format must be one or more of saved_model" in said
        assert said.strip().endswith("Received: saved_model,tritn. Did you mean 'triton'?")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--int8", "--format", "onnx"],
                "--format must be one or more of saved_model,litert,openvino with --int8. Rec",
            ),
            (["--calibrate", 3], "--calibrate needs --int8."),
            (["--int8", "--calibrate", 3, "--format", "litert"], "--int8 of litert needs --data"),
            (["--calibrate", 0], "--calibrate must be positive. Received: 0"),
            (["--int8", "--calibrate", 3], "is for litert, openvino. Received: --format saved_mo"),
            (["--split", 0.2], "--split needs --dataset. Received: 0.2"),
            (["--data-dir", "d"], "--data-dir needs --dataset. Received: d"),
            (["--int8", "--format", "litert,openvino"], "--int8 of openvino needs --dataset"),
            (["--labels", "no such file"], "argument --labels: "),
        ],
    )
    def test_arguments_that_do_not_go_together(self, monkeypatch, capsys, arguments, message):
        with pytest.raises(SystemExit):
            self.run(
                monkeypatch,
                *("--model", "crossvit_9", "--weights", "w", "--output-dir", "d", *arguments),
            )
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "counts"),
        [
            ("", (0, 0)),
            ("--int8", (0, 300)),
            ("--int8 --calibrate 7", (7, 7)),
        ],
    )
    def test_calibration_images(self, arguments, counts):
        from keras_crossvit.commands.export import calibration_images, parse_export

        given = "run --output-dir d --format litert,openvino,saved_model --dataset digits"
        if "--int8" not in arguments:
            given = given.replace("openvino", "openvino,onnx,triton")
        parsed = parse_export([*given.split(), *arguments.split()])
        assert tuple(calibration_images(parsed, name) for name in ("litert", "openvino")) == counts
        assert calibration_images(parsed, "saved_model") == 0

    def test_accuracy_of_each_file(self, tmp_path, monkeypatch, capsys):
        """On a folder of pictures, with LiteRT's activations calibrated on some of them."""
        pytest.importorskip("ai_edge_litert")
        config = kc.CrossViTConfig.preset("crossvit_digits")
        model = randomize(kc.CrossViT(config, weights=None, classes=2), scale=0.1)
        kc.save_checkpoint(model, tmp_path / "w.safetensors")
        files = {}
        for split, name, seed in itertools.product(("train", "val"), ("a", "b"), range(4)):
            path = tmp_path / "data" / split / name / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(seed + 4 * (name == "b")))
            files[split, name, seed] = path.read_bytes()
        self.run(
            monkeypatch,
            *("--model", "crossvit_digits", "--weights", tmp_path / "w.safetensors"),
            *("--classes", 2, "--output-dir", tmp_path / "out", "--format", "litert", "--int8"),
            *("--dataset", f"folder:{tmp_path / 'data'}", "--calibrate", 3),
        )
        path = tmp_path / "out" / "crossvit_digits_int8.tflite"
        images = [
            evaluation_transform(decode(file), model.input_shape[1:3])
            for (split, _, _), file in files.items()
            if split == "val"
        ]
        right = load_exported(path)(np.stack(images)).argmax(1) == [0] * 4 + [1] * 4
        assert capsys.readouterr().out.endswith(f"litert: {path} ({right.mean():.2%} top-1)\n")

    def test_calibration_takes_images_from_all_over_the_split(self, tmp_path, monkeypatch, capsys):
        """The first images of a folder are all of one class. Unreadable ones are left out."""
        given = {}

        def export(model, name, directory, **arguments):
            given.update(arguments)
            return directory

        monkeypatch.setattr("keras_crossvit.commands.export.export", export)

        def top1(path, batches, precision):
            given["labels"] = np.concatenate([x.numpy()[n > 0] for _, x, n in batches]).argmax(1)
            return 0.5

        monkeypatch.setattr("keras_crossvit.commands.export.top1", top1)
        for split, shade, number in itertools.product(("train", "val"), (0, 120, 240), range(4)):
            path = tmp_path / "data" / split / str(shade) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(np.full((50, 50, 3), shade, "uint8"), "PNG"))
        model = base.small_model(classes=3, labels=("240", "0", "120"))
        model.save(tmp_path / "model.keras")
        data = "--dataset", f"folder:{tmp_path / 'data'}", "--int8", "--calibrate"
        export_it = tmp_path / "model.keras", "--output-dir", tmp_path, "--format", "openvino"
        broken = tmp_path / "data" / "train" / "120" / "broken.png"
        broken.write_bytes(b"none")
        self.run(monkeypatch, *export_it, *data, 20)
        assert given["samples"].mean((1, 2, 3)).tolist() == [0] * 4 + [120] * 4 + [240] * 4
        broken.unlink()
        assert given["exif_orientation"] is True
        further = "--no-exif-orientation", "--max-batch-size", 4
        self.run(monkeypatch, *export_it, *data, 6, *further)
        assert (given["exif_orientation"], given["max_batch_size"]) == (False, 4)
        assert given["samples"].mean((1, 2, 3)).tolist() == [0, 0, 120, 120, 240, 240]
        assert given["labels"].tolist() == [1] * 4 + [2] * 4 + [0] * 4  # the model's numbers
        assert "openvino: " in capsys.readouterr().out
        del given["labels"]
        run = {"dataset": f"folder:{tmp_path / 'data'}", "train_split": "val"}
        (tmp_path / "config.json").write_text(json.dumps(run))
        self.run(monkeypatch, *export_it, "--int8", "--calibrate", 3)  # on the run's own data
        assert given["samples"].mean((1, 2, 3)).tolist() == [0, 120, 240]
        assert "50.00% top-1" in capsys.readouterr().out
        assert len(given["labels"]) == 12
        self.run(monkeypatch, *export_it[:-1], "onnx")
        assert given["samples"] is None
        assert "top-1" not in capsys.readouterr().out
