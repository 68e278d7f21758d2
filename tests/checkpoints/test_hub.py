"""Models to a hub and back, over HTTP, with a hub that runs here: what is asked, what is sent, and what is refused."""

import json
import sys

import pytest
import yaml
from fake_hub import COMMIT, serve

import aumcli
from aumcli.checkpoints import hub, read_config, read_model
from aumcli.checkpoints.lookup import find_model
from aumcli.errors import AumError

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
pytest_plugins = ["aum_fixtures"]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The hub; its address and an empty cache are what huggingface_hub uses."""
    with serve() as running:
        address = f"http://127.0.0.1:{running.server_port}"
        for name, value in (
            ("ENDPOINT", address),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("HF_HUB_OFFLINE", False),
            ("HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"),
        ):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(
            huggingface_hub, "HfApi", lambda: huggingface_hub.hf_api.HfApi(endpoint=address, token="hf_fake")
        )
        monkeypatch.setenv("HF_TOKEN", "hf_fake")
        yield running


def test_there_and_back_bit_by_bit(fake, aum, clips, tmp_path):
    digits = find_model("digits")
    sent = aum("convert", "digits", "hf://me/digits")
    assert sent.code == 0 and "hf://me/digits" in sent.out and COMMIT in sent.out, sent.err
    assert set(fake.files["me/digits"]) == {"README.md", "config.json", "model.safetensors"}
    fake.files["me/digits"] |= {"evil.py": b"import os", "model.pkl": b"pickle", "pytorch_model.bin": b"pickle"}
    fetched = aum("convert", "hf://me/digits@v1", tmp_path / "back")
    assert fetched.code == 0, fetched.err
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["config.json", "model.safetensors"]
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "back" / name).read_bytes() == (digits / name).read_bytes()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".py", ".pkl", ".bin")]
    assert not [line for line in fake.asked if "evil" in line or "pkl" in line or ".bin" in line]
    clip = next(clips.glob("*.wav"))
    assert aumcli.load_model("hf://me/digits").predict(clip) == aumcli.load_model("digits").predict(clip)
    assert aum("predict", clip, "--model", "hf://me/digits").code == 0
    again = aum("convert", "hf://me/digits", tmp_path / "back")
    assert again.code == 2 and "already holds a model" in again.err


def test_the_card(fake, trained):
    folder = trained / "best"
    (trained / "eval-test.json").write_text(
        json.dumps({"metrics": {"accuracy": 0.875, "mean_average_precision": None, "clips": 6}})
    )
    hub.push(folder, "me/tones", licence="cc-by-4.0")
    text = fake.files["me/tones"]["README.md"].decode()
    (trained / "eval-test.json").unlink()
    _, header, body = text.split("---\n", 2)
    values = yaml.safe_load(header)
    assert values == {
        "library_name": "aumcli",
        "pipeline_tag": "audio-classification",
        "license": "cc-by-4.0",
        "tags": ["audio-classification", "audio-mamba"],
        "metrics": ["accuracy"],
    }
    assert huggingface_hub.ModelCardData(**values)
    config = read_config(folder)
    parameters = sum(x.numel() for x in read_model(folder)[0].parameters())
    for words in (
        "`high`, `hiss`, `low`",
        f"{parameters:,} parameters",
        config.model.describe(),
        "8000 Hz",
        "**Trained on**: tones",
        f"**Seed**: {config.provenance['seed']}",
        "val split**: accuracy",
        "test split**: accuracy 0.8750",
        'aumcli.load_model("hf://me/tones")',
    ):
        assert words in body, words
    assert str(trained) not in text and "None" not in text


def test_many_labels_are_counted():
    config = read_config(find_model("digits"))
    config = config.model_copy(update={"labels": tuple(f"class {i}" for i in range(50)), "activation": "sigmoid"})
    card = hub.model_card(config, "me/many", 5, {})
    assert "`class 19` and 30 more" in card and "class 20" not in card and "any of 50 classes" in card


def test_what_is_refused(fake, aum, tmp_path, clips):
    fake.files |= {
        "me/half": {"config.json": b"{}"},
        "me/bad": {"config.json": b"{}", "model.safetensors": b"\x80\x04pickle"},
    }
    for name, words in (
        ("me/nothing", "no such model or revision"),
        ("me/half", "no model directory of aumcli"),
        ("me/bad@v9", "no such model or revision"),
        ("me/bad", "config.json is damaged"),
        ("me", "names no model"),
        ("me/bad@", "names no model"),
        ("../x", "can't fetch ../x"),
    ):
        result = aum("convert", f"hf://{name}", tmp_path / "out")
        assert result.code in (1, 2) and words in result.err, (name, result.err)
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    result = aum("convert", tmp_path / "empty", "hf://me/new")
    assert result.code == 2 and "me/new" not in fake.files


def test_other_bytes_than_listed_are_refused(fake, monkeypatch):
    hub.push(find_model("digits"), "me/digits")
    listing = fake.listing
    for name in ("model.safetensors", "config.json"):

        def lie(repo, name=name):
            rows = listing(repo)
            for row in rows:
                if row["rfilename"] == name and "lfs" in row:
                    row["lfs"] |= {"sha256": "0" * 64, "oid": "0" * 64}
                elif row["rfilename"] == name:
                    row |= {"blobId": "0" * 40, "oid": "0" * 40}
            return rows

        monkeypatch.setattr(fake, "listing", lie)
        with pytest.raises(AumError, match=f"{name} of me/digits is not what the hub lists"):
            hub.pull("me/digits")


def test_no_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: huggingface_hub.hf_api.HfApi(endpoint="http://127.0.0.1:9"))
    for call in (lambda: aumcli.load_model("hf://me/digits"), lambda: hub.push(find_model("digits"), "me/digits")):
        with pytest.raises(AumError, match="(?i)refused") as caught:
            call()
        assert caught.value.exit_code == 1 and "HF_ENDPOINT" in caught.value.fix
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(AumError, match="not installed") as caught:
        hub.pull("me/digits")
    assert "aumcli[hub]" in caught.value.fix


def test_only_the_prefix_asks_the_network(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "_hub", lambda what: pytest.fail("the network was asked"))
    with pytest.raises(AumError, match="there is no model me/digits"):
        aumcli.load_model("me/digits")
    monkeypatch.chdir(tmp_path)
    hub.copy_model(find_model("digits"), tmp_path / "hf:" / "me" / "digits")  # a local path wins
    assert len(aumcli.load_model("hf://me/digits").labels) == 10
