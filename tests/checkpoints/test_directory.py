"""Model directories: what is saved comes back bit by bit, and nothing else is ever loaded."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aumcli.checkpoints import read_config, read_model, save_model
from aumcli.config import AudioMambaConfig, FrontendConfig, ModelConfig
from aumcli.core.audio_mamba import AudioMamba
from aumcli.errors import AumError
from aumcli.utils.files import temporary_path


def make(**changes) -> tuple[AudioMamba, ModelConfig]:
    values = {"width": 16, "depth": 2, "n_classes": 3, "n_mels": 32, "frames": 48, "state_size": 4, **changes}
    model = AudioMambaConfig(**values)
    config = ModelConfig(
        model=model,
        frontend=FrontendConfig(n_mels=model.n_mels, frames=model.frames, sample_rate_hz=8000),
        labels=tuple("abcdefgh"[: model.n_classes]),
        activation="softmax",
        provenance={"seed": 3, "data": "data/ü", "epoch": None, "scores": [0.5, 1]},
    )
    torch.manual_seed(5)
    return AudioMamba(model), config


@pytest.fixture
def saved(tmp_path) -> Path:
    network, config = make()
    save_model(tmp_path / "model", network.state_dict(), config)
    return tmp_path / "model"


def problem(folder) -> AumError:
    with pytest.raises(AumError) as caught:
        read_model(folder)
    assert caught.value.fix and str(folder) in caught.value.problem
    return caught.value


def test_round_trip_bit_by_bit(saved):
    network, config = make()
    again, config_again = read_model(saved)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert config_again == config
    assert list(again.state_dict()) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert not again.training
    features = torch.randn(2, 48, 32)
    with torch.no_grad():
        assert torch.equal(again(features), network.eval()(features))


def test_the_tensors_have_the_authors_names(saved):
    names = set(load_file(saved / "model.safetensors"))
    assert {
        "patch_embed.proj.weight",
        "pos_embed.pos_embed",
        "cls_token",
        "layers.0.mixer.A_b_log",
        "norm_f.weight",
        "head.weight",
    } <= names


def test_the_same_model_gives_the_same_bytes(saved, tmp_path):
    network, config = make()
    shuffled = dict(reversed(network.state_dict().items()))
    save_model(tmp_path / "other", shuffled, config)
    for name in ("model.safetensors", "config.json"):
        assert (saved / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_half_precision_is_stored_and_read_as_float32(tmp_path):
    network, config = make()
    save_model(tmp_path, network.state_dict(), config, torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    again, _ = read_model(tmp_path)
    for name, tensor in network.state_dict().items():
        assert again.state_dict()[name].dtype == torch.float32
        assert torch.equal(again.state_dict()[name], tensor.half().float()), name


def test_saving_over_another_model(saved):
    network, config = make(width=32)
    save_model(saved, network.state_dict(), config)
    assert read_model(saved)[1].model.width == 32


def test_reading_draws_no_random_numbers(saved):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    read_model(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_folder_and_files(saved, tmp_path):
    assert "has no config.json" in problem(tmp_path / "nowhere").problem
    (saved / "model.safetensors").unlink()
    assert "model.safetensors" in problem(saved).problem
    (saved / "config.json").unlink()
    assert "has no config.json" in problem(saved).problem


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-100],
        lambda data: data[:6],
        lambda data: b"",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: b"not weights at all",
    ],
    ids=["cut at the end", "cut in the header", "empty", "absurd header", "text"],
)
def test_damaged_weights(saved, spoil):
    path = saved / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    error = problem(saved)
    assert "model.safetensors" in error.problem and error.exit_code == 1


class Bomb:
    """What unpickling it would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, bomb: path.write_bytes(pickle.dumps(bomb)),
        lambda path, bomb: torch.save(bomb, path),
        lambda path, bomb: torch.save({"a": torch.zeros(2), "b": bomb}, path, _use_new_zipfile_serialization=False),
    ],
    ids=["pickle", "pth", "old pth"],
)
def test_a_pickle_is_never_loaded(saved, tmp_path, write):
    write(saved / "model.safetensors", Bomb(tmp_path / "exploded"))
    assert "can't read" in problem(saved).problem
    assert not (tmp_path / "exploded").exists()


def test_a_published_checkpoint_under_a_false_name(saved):
    torch.save(make()[0].state_dict(), saved / "model.safetensors")
    assert "can't read" in problem(saved).problem


@pytest.mark.parametrize(
    "other", [{"width": 32}, {"depth": 3}, {"n_classes": 4}, {"state_size": 8}, {"frames": 64}, {"direction": "Bi-Bi"}]
)
def test_weights_of_another_model(saved, tmp_path, other):
    network, config = make(**other)
    save_model(tmp_path / "other", network.state_dict(), config)
    (saved / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    assert "doesn't fit config.json" in problem(saved).problem


def test_missing_and_additional_tensors(saved):
    tensors = load_file(saved / "model.safetensors")
    save_file({**tensors, "intruder": torch.zeros(1)}, saved / "model.safetensors")
    assert "intruder" in problem(saved).problem
    del tensors["head.bias"]
    save_file(tensors, saved / "model.safetensors")
    assert "head.bias" in problem(saved).problem


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("labels"),
        lambda c: c["labels"].append("more"),
        lambda c: c["frontend"].update(frames=64),
        lambda c: c["model"].update(depht=3),
        lambda c: c["model"].update(width="wide"),
        lambda c: c.update(format=99),
        lambda c: c.update(activation="none"),
        lambda c: c.update(intruder=1),
        lambda c: c["frontend"].update(std=0),
    ],
)
def test_damaged_config(saved, change):
    path = saved / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    assert "config.json is damaged or from another version" in problem(saved).problem


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_config_that_is_no_json_object(saved, data):
    (saved / "config.json").write_bytes(data)
    assert "config.json is damaged" in problem(saved).problem


def test_config_alone_can_be_read(saved):
    assert read_config(saved).labels == ("a", "b", "c")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_full_disk_keeps_the_old_files_whole(saved, name):
    """Whichever file meets the full disk: each of the two is the old one or the new one."""
    old = {path.name: path.read_bytes() for path in saved.iterdir()}
    network, config = make()
    network.head.bias.data += 1
    temporary_path(saved / name).symlink_to("/dev/full")
    with pytest.raises(AumError, match="no space left"):
        save_model(saved, network.state_dict(), config)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert (saved / name).read_bytes() == old[name]
    read_model(saved)


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("no folder")
    network, config = make()
    with pytest.raises(AumError, match="can't write .*file/model") as caught:
        save_model(tmp_path / "file" / "model", network.state_dict(), config)
    assert caught.value.exit_code == 2
