"""Exported models: the file gives the model's logits for any batch, says what it is, and runs without aumcli."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from baselines import import_torchaudio

import aumcli
from aumcli.checkpoints import export, save_model
from aumcli.classifier import Classifier
from aumcli.config import ARCHITECTURES, FrontendConfig, ModelConfig
from aumcli.core import build_network
from aumcli.errors import AumError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def classifier(architecture: str, frames: int = 64, **values) -> Classifier:
    """A model with random weights, each of which counts."""
    sizes = {
        "width": 32,
        "depth": 1,
        "n_classes": 3,
        "n_mels": 32,
        "frames": frames,
        "patch_mels": 16,
        "patch_frames": 16,
    }
    model = ARCHITECTURES[architecture](**{**sizes, **values})
    config = ModelConfig(
        model=model, frontend=FrontendConfig(n_mels=32, frames=frames), labels=("a", "b", "ü"), activation="sigmoid"
    )
    torch.manual_seed(3)
    network = build_network(model)
    with torch.no_grad():
        for x in network.parameters():
            x.add_(0.1 * torch.randn_like(x))
    return Classifier(network, config, "here")


def run(path: Path, features: torch.Tensor) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(None, {"features": features.numpy()})[0]


MODELS = {
    "Fo-Fo end": ("aum", {"direction": "Fo-Fo", "cls_position": "end"}),
    "Fo-Bi mid": ("aum", {}),
    "Bi-Bi head": ("aum", {"direction": "Bi-Bi", "cls_position": "head"}),
    "stem": ("aum", {"tokenizer": "conv", "pooling": "mean"}),
    "AST behind a stem": ("ast", {"tokenizer": "conv", "heads": 4}),
    "distilled AST": ("ast", {"heads": 4, "distilled": True, "overlap": 6}),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, tuple[Classifier, Path, list[tuple[str, str]]]]:
    """name -> a model, its ONNX file, and what was said about it."""
    root, made = tmp_path_factory.mktemp("exported"), {}
    for name, (architecture, values) in MODELS.items():
        model, path = classifier(architecture, **values), root / name / "model.onnx"
        made[name] = model, path, export.export_model(model, path)
    return made


@pytest.mark.parametrize("name", MODELS)
def test_onnx_gives_the_same_logits(exported, name):
    model, path, rows = exported[name]
    onnx.checker.check_model(path, full_check=True)
    for batch in (1, 2, 5):
        features = torch.randn(batch, 64, 32)
        want = model.logits(features).numpy()
        assert batch == 1 or np.ptp(want, axis=0).max() > 1e-3, "the features don't matter"
        np.testing.assert_allclose(run(path, features), want, atol=1e-5)
    assert [what for what, _ in rows if "difference" in what] == [
        "largest difference, batch 1",
        "largest difference, batch 3",
    ]
    with pytest.raises(Exception, match="(?i)invalid"):
        run(path, torch.randn(1, 48, 32))


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported):
    model, path, _ = exported["Fo-Bi mid"]
    found = {each.key: each.value for each in onnx.load(path).metadata_props}
    values = {key: value if key in ("activation", "views") else json.loads(value) for key, value in found.items()}
    assert ModelConfig.model_validate(values) == model.config
    data = path.read_bytes()
    assert str(Path(export.__file__).parent).encode() not in data and b".py" not in data
    assert [each.name for each in path.parent.iterdir()] == ["model.onnx"]


def test_the_graph_does_not_grow_with_the_length(exported, tmp_path):
    export.export_model(classifier("aum", 640), tmp_path / "long.onnx")
    short, long = (onnx.load(path).graph.node for path in (exported["Fo-Bi mid"][1], tmp_path / "long.onnx"))
    assert len(short) == len(long) and sum(node.op_type == "Scan" for node in long) == 2


def test_torch_export_runs_without_aumcli(tmp_path):
    model = classifier("aum", direction="Fo-Fo", tokenizer="conv")
    export.export_model(model, tmp_path / "model.pt2")
    torch.manual_seed(1)
    want = model.logits(torch.randn(4, 64, 32))
    code = (
        "import sys, torch\nextra = {'labels': '', 'activation': ''}\n"
        f"program = torch.export.load({str(tmp_path / 'model.pt2')!r}, extra_files=extra)\ntorch.manual_seed(1)\n"
        f"torch.save(program.module()(torch.randn(4, 64, 32)), {str(tmp_path / 'logits')!r})\n"
        "print(extra, 'aumcli' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert '"ü"' in done.stdout and "sigmoid" in done.stdout and done.stdout.endswith("False\n")
    torch.testing.assert_close(torch.load(tmp_path / "logits", weights_only=True), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong", [lambda x: x + 2e-4, lambda x: x * float("nan"), lambda x: x[:, :2]], ids=["more", "NaN", "fewer"]
)
def test_a_file_that_differs_is_not_left(tmp_path, monkeypatch, wrong):
    model = classifier("ast", heads=2)
    monkeypatch.setattr(export, "_trace", lambda *args: None)
    monkeypatch.setattr(export, "_write_onnx", lambda program, path, fields: path.write_bytes(b"network"))
    monkeypatch.setattr(export, "_run_onnx", lambda path, features: wrong(model.logits(features)))
    with pytest.raises(AumError, match="differ from the model's.*no file was left") as caught:
        export.export_model(model, tmp_path / "model.onnx")
    assert caught.value.exit_code == 1 and not list(tmp_path.iterdir())
    monkeypatch.setattr(export, "_run_onnx", lambda path, features: model.logits(features))
    export.export_model(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"network"


def test_mistakes(tmp_path, monkeypatch):
    model = classifier("ast", heads=2)
    (tmp_path / "old.onnx").write_text("mine")
    for name, words in (
        ("old.onnx", "exists already"),
        ("model.tflite", "can't be exported as"),
        ("old.onnx/model.pt2", "can't write"),
    ):
        with pytest.raises(AumError, match=words):
            export.export_model(model, tmp_path / name)
    monkeypatch.setattr(export, "MOST_BYTES", 1000)
    with pytest.raises(AumError, match="can't have more than 2"):
        export.export_model(model, tmp_path / "model.onnx")
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(AumError, match="needs onnxscript") as caught:
        export.export_model(model, tmp_path / "model.onnx")
    assert "aumcli[onnx]" in caught.value.fix
    assert (tmp_path / "old.onnx").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_the_document_from_sound_to_scores(tmp_path, aum, clips, monkeypatch):
    """`aum convert`, then the code in docs/export.md, which has no part of aumcli in it, labels a sound as we do."""
    model = classifier("ast", heads=2)
    config = model.config.model_copy(
        update={"frontend": FrontendConfig(n_mels=32, frames=64, sample_rate_hz=8000), "activation": "softmax"}
    )
    save_model(tmp_path / "model", model.network.state_dict(), config)
    result = aum("convert", tmp_path / "model", tmp_path / "model.onnx")
    assert result.code == 0 and "largest difference" in result.out, result.err
    import_torchaudio("compliance.kaldi")
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "aumcli" not in code
    monkeypatch.chdir(tmp_path)
    refused = aum("convert", tmp_path / "model", tmp_path / "other.onnx", "--frames", 128)
    assert refused.code == 2 and "options" in refused.err and not (tmp_path / "other.onnx").exists()
    clip, names = str(next(clips.glob("*.wav"))), {}
    exec(code.replace("clip.wav", clip), names)
    ours = dict(aumcli.load_model(tmp_path / "model").predict(clip, top=3))
    assert max(ours.values()) > 0.34
    np.testing.assert_allclose(names["scores"], [ours[label] for label in config.labels], atol=1e-4)
