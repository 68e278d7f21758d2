"""aum ablate: a row per cell, ordinary runs below, and the same command again goes on where it stopped."""

import json

import pytest

from aumcli.ablate import Cell, ablate, table
from aumcli.errors import AumError

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

TINY = "tests/fixtures/tiny.toml"
GRID = ["model.cls_position=head,mid"]
SHORT = ["train.epochs=1"]


@pytest.fixture
def recipe(request) -> str:
    return str(request.config.rootpath / TINY)


def test_command_trains_every_cell_and_seed(aum, recipe, corpus, tmp_path):
    result = aum("ablate", "--recipe", recipe, "--data", corpus, "--grid", GRID[0], "--seeds", 2, "--set", SHORT[0],
                 "--out", tmp_path)
    assert result.code == 0, result.err
    written = json.loads((tmp_path / "ablation.json").read_text())
    for cell, name in zip(written["cells"], ("head", "mid"), strict=True):
        assert cell["overrides"] == [f"model.cls_position={name}"] and not cell["failures"]
        for seed in ("0", "1"):
            run = tmp_path / name / f"seed-{seed}"
            assert cell["scores"][seed] == json.loads((run / "eval-test.json").read_text())["metrics"]["accuracy"]
            assert f'cls_position = "{name}"' in (run / "recipe.toml").read_text()
        assert cell["mean"] == pytest.approx((cell["scores"]["0"] + cell["scores"]["1"]) / 2)
    lines = (tmp_path / "ablation.md").read_text().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| head |") and lines[3].startswith("| mid |")


def test_finished_runs_are_kept_and_others_made(recipe, corpus, tmp_path):
    first = ablate(recipe, tmp_path, corpus, GRID, 1, SHORT, say=lambda text: None)
    kept = (tmp_path / "head" / "seed-0" / "report.json").stat().st_mtime_ns
    for name in ("report.json", "eval-test.json"):       # as if killed after the last epoch
        (tmp_path / "mid" / "seed-0" / name).unlink()
    again = ablate(recipe, tmp_path, corpus, GRID, 1, SHORT, say=lambda text: None)
    assert again == first and (tmp_path / "head" / "seed-0" / "report.json").stat().st_mtime_ns == kept
    assert (tmp_path / "mid" / "seed-0" / "report.json").is_file()


def test_a_failed_cell_is_reported_and_the_rest_done(aum, recipe, corpus, tmp_path):
    result = aum("ablate", "--recipe", recipe, "--data", corpus, "--grid", "train.lr=0.005,1e30", "--seeds", 1, "--set", "train.epochs=2",
                 "--out", tmp_path)
    assert result.code == 1 and "no number" in result.out
    good, bad = json.loads((tmp_path / "ablation.json").read_text())["cells"]
    assert good["mean"] is not None and bad["mean"] is None and "no number" in bad["failures"]["0"]


def test_another_recipe_in_the_same_folder_is_refused(recipe, corpus, tmp_path):
    ablate(recipe, tmp_path, corpus, ["model.cls_position=mid"], 1, SHORT, say=lambda text: None)
    cell, = ablate(recipe, tmp_path, corpus, ["model.cls_position=mid"], 1, ["train.epochs=2"], say=lambda text: None)
    assert "another recipe" in cell.failures[0]


def test_architectures_can_be_compared(recipe, corpus, tmp_path):
    plain = tmp_path / "plain.toml"
    plain.write_text("[data]\nfit = ['clip_length', 'normalisation']\n[frontend]\nn_mels = 32\n[model]\nwidth = 16\ndepth = 1\n"
                     "patch_mels = 32\npatch_frames = 4\n[train]\nepochs = 1\n")
    with pytest.raises(AumError, match="heads"):
        ablate(str(plain), tmp_path / "a", corpus, ["model.architecture=aum,ast"], 1, say=lambda text: None)
    plain.write_text(plain.read_text().replace("width = 16\ndepth = 1", "size = 'nano'"))
    aum, ast = ablate(str(plain), tmp_path / "a", corpus, ["model.architecture=aum,ast"], 1, say=lambda text: None)
    assert aum.scores and ast.scores


@pytest.mark.parametrize("grid, words", [(["model.cls_position"], "key=value"), (["model.cls_position=head,"], "key=value"),
                                         (["model.nose=1,2"], "nose"), (["model.cls_position=head,left"], "left")])
def test_mistakes_are_named_before_anything_is_trained(recipe, corpus, tmp_path, grid, words):
    with pytest.raises(AumError, match=words):
        ablate(recipe, tmp_path, corpus, grid, 1)
    assert not list(tmp_path.iterdir())


def test_table_marks_the_best_cell():
    cells = [Cell(("a.b=x",), {0: 0.5, 1: 0.7}, {}), Cell(("a.b=y",), {0: 0.9}, {1: "broken"})]
    assert table(cells) == (["b", "test score (%), * best", "seeds", "failed"],
                            [["x", "60.00 ± 14.14", "2", "-"], ["y", "90.00 *", "1", "broken"]])
