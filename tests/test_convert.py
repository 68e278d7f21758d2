"""Published checkpoints through `aum convert`: the recorded logits come out, and what is no checkpoint is refused."""

import json
import pickle

import numpy as np
import pytest
import torch

import aumcli
from aumcli.config import AudioMambaConfig
from aumcli.convert import convert
from aumcli.core.audio_mamba import AudioMamba
from aumcli.errors import AumError
from aumcli.weights import import_checkpoint, read_model

pytest_plugins = ["aum_fixtures"]
AUM = ["Fo-Fo_head", "Fo-Fo_mid", "Fo-Bi_head", "Fo-Bi_mid", "Fo-Bi_mid_128x256", "Fo-Bi_mid_module_prefix", "Bi-Bi_mid", "Bi-Bi_end"]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", AUM)
def test_published_audio_mambas(golden, tmp_path, name, backend):
    recorded = np.load(golden / "aum" / f"{name}.npz", allow_pickle=False)
    convert(golden / "aum" / f"{name}.pth", tmp_path / "model", cls_position=json.loads(str(recorded["config"]))["cls"])
    network, _ = read_model(tmp_path / "model", backend)
    with torch.inference_mode():
        np.testing.assert_allclose(network(torch.from_numpy(recorded["input"])).numpy(), recorded["logits"], atol=1e-4)
        np.testing.assert_allclose(network.forward_features(torch.from_numpy(recorded["input"])).numpy(), recorded["features"], atol=1e-4)


@pytest.mark.parametrize("name", ["ast_128x128", "ast_128x256", "ast_distilled_128x128"])
def test_published_transformers(golden, tmp_path, name):
    recorded = np.load(golden / "ast" / f"{name}.npz", allow_pickle=False)
    heads = json.loads(str(recorded["config"]))["num_heads"]
    convert(golden / "ast" / f"{name}.pth", tmp_path / "model", heads=heads)
    logits = aumcli.load_model(tmp_path / "model").logits(torch.from_numpy(recorded["input"]))
    np.testing.assert_allclose(logits.numpy(), recorded["logits"], atol=1e-4)
    with pytest.raises(AumError, match="heads"):
        import_checkpoint(golden / "ast" / f"{name}.pth")


@pytest.fixture
def checkpoint(tmp_path):
    """A small Audio Mamba's state dict and where it would be saved."""
    torch.manual_seed(0)
    config = AudioMambaConfig(width=32, depth=2, n_classes=3, n_mels=128, frames=32, direction="Bi-Bi", state_size=4)
    return AudioMamba(config).state_dict(), tmp_path / "model.pth"


def test_nothing_changes_on_the_way(checkpoint, tmp_path, aum):
    tensors, path = checkpoint
    torch.save({"model": {f"module.{name}": x for name, x in tensors.items()}}, path)
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,/m/1,\"Dog, bark\"\n1,/m/2,Rain\n2,/m/3,Bell\n")
    result = aum("convert", path, tmp_path / "out", "--labels", tmp_path / "labels.csv")
    assert result.code == 0 and "Bi-Bi" in result.out, result.err
    network, config = read_model(tmp_path / "out")
    assert config.labels == ("Dog, bark", "Rain", "Bell") and config.model.frames == 32 and config.model.state_size == 4
    assert all(torch.equal(x, tensors[name]) for name, x in network.state_dict().items())
    again = aum("convert", path, tmp_path / "out")
    assert again.code == 2 and "already holds a model" in again.err


class Harm:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return __import__("os").mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    torch.save({"layers.0.mixer.in_proj.weight": Harm(tmp_path / "harmed")}, tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harm(tmp_path / "harmed")))
    for name in ("bad.pth", "plain.pth"):
        with pytest.raises(AumError, match="not opened"):
            import_checkpoint(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


def test_damaged_and_foreign_files_are_refused(checkpoint, tmp_path):
    tensors, path = checkpoint
    torch.save(tensors, path)
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"x": torch.ones(2)}, tmp_path / "foreign.pth")
    torch.save({**tensors, "cls_token": tensors["cls_token"] * float("nan")}, tmp_path / "nan.pth")
    torch.save({k: x for k, x in tensors.items() if k != "head.weight"}, tmp_path / "headless.pth")
    torch.save({k: x for k, x in tensors.items() if k != "norm_f.weight"}, tmp_path / "normless.pth")
    for name, words in (("cut", "cut"), ("empty", "empty"), ("list", "state dict"), ("foreign", "no checkpoint"), ("nan", "NaN"),
                        ("headless", "head.weight"), ("normless", "norm_f.weight"), ("missing", "does not exist")):
        with pytest.raises(AumError, match=words):
            import_checkpoint(tmp_path / f"{name}.pth")
    with pytest.raises(AumError, match="2 labels for a head of 3"):
        import_checkpoint(path, labels=["a", "b"])
    with pytest.raises(AumError, match="cls_position"):
        import_checkpoint(path, cls_position="middle")


@pytest.mark.parametrize("name, words", [
    ("m.tflite", "can't be written as .tflite"), ("m.pt", "can't be written as .pt"), ("deep/m.safetensors", ".safetensors"), ("m.Q8", ".Q8"),
    ("-", "standard output")])
def test_a_name_like_a_file_of_another_kind_is_refused(aum, trained, tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    result = aum("convert", trained, name)
    assert result.code == 2 and words in result.err and "fix: name a " in result.err and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["m.tflite/", "v1.5", "a.10-10-0.4593", "there.pt"])
def test_a_directory_may_be_called_so_where_that_is_said(aum, trained, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pt").mkdir()
    assert aum("convert", trained, name).code == 0
    read_model(tmp_path / name)


def test_a_suffix_may_be_in_capitals(aum, trained, tmp_path):
    result = aum("convert", trained, tmp_path / "M.PT2")
    assert result.code == 0 and "largest difference" in result.out and (tmp_path / "M.PT2").is_file()
