"""What a run shows while it goes on, and what it leaves behind."""

import json

import pytest
import torch
from tiny import tiny
from training import assert_same_run, history, quietly

from aumcli.classifier import load_model
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


# what a run leaves behind

def test_files_of_a_run(trained, corpus):
    files = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    files -= {"eval-test.json", "confusion-test.png"}                       # other tests evaluate the same run
    assert files == {"recipe.toml", "metrics.csv", "report.json", "report.md", "curves.png", "confusion-val.png", "last/state.pt",
                     "best/config.json", "best/model.safetensors", "last/config.json", "last/model.safetensors"}
    assert all((trained / name).read_bytes().startswith(b"\x89PNG") for name in ("curves.png", "confusion-val.png"))
    report = json.loads((trained / "report.json").read_text())
    assert report["clips"] == 6 and report["split"] == "val" and report["seed"] == 0 and report["dtype"] == "float32"
    assert report["device"] == "cpu" and report["backend"] in ("cpu", "torch") and report["environment"]["torch"]
    rows = history(trained)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13)) == [row["epoch"] for row in report["epochs"]]
    recipe = load_recipe(trained / "recipe.toml")
    assert report["recipe"] == recipe.model_dump(mode="json")
    best = max(rows, key=lambda row: float(row["val_accuracy"]))            # the first of equals
    provenance = load_model(trained).config.provenance
    assert provenance["epoch"] == int(best["epoch"]) and provenance["seed"] == 0 and provenance["data"] == str(corpus)
    assert report["metrics"]["accuracy"] == pytest.approx(float(best["val_accuracy"]))
    assert load_model(trained / "last").config.provenance["epoch"] == 12


def test_the_resolved_recipe_trains_the_same_model(reference, corpus, tmp_path):
    run = quietly(load_recipe(reference / "recipe.toml"), tmp_path / "run", corpus)
    assert_same_run(run, reference)


def test_last_holds_the_averaged_weights_and_the_state_the_trained_ones(reference):
    state = torch.load(reference / "last" / "state.pt", weights_only=True)
    network = load_model(reference / "last").network.state_dict()
    assert all(torch.equal(network[name], tensor) for name, tensor in state["averaged"].items())
    assert not all(torch.equal(network[name], tensor) for name, tensor in state["network"].items())
