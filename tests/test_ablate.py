"""aum ablate: a row per cell, ordinary runs below, the same command again goes on where it stopped; and what is significant."""

import csv
import itertools
import json
import shutil

import numpy as np
import pytest

from tiny import RECIPE

from aumcli.ablate import Ablation, Cell, ablate
from aumcli.ablate import picture
from aumcli.ablate.grid import count_parameters, equal_width
from aumcli.ablate.significance import compare, detectable_effect, sign_flip_p, weighted_map
from aumcli.ablate.tables import write_ablation
from aumcli.errors import AumError
from aumcli.evaluate import read_scores
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

TINY = "tests/fixtures/tiny.toml"
GRID = ["model.cls_position=head,mid"]
SHORT = ["train.epochs=1"]
ARCHITECTURES = ("[data]\nfit = ['clip_length', 'normalisation']\n[frontend]\nn_mels = 32\n[model]\nsize = 'nano'\npatch_mels = 32\n"
                 "patch_frames = 4\n[train]\nepochs = 1\n")


@pytest.fixture
def recipe(request) -> str:
    return str(request.config.rootpath / TINY)


def quietly(*arguments, **options):
    return ablate(*arguments, **{"jobs": 1, "say": lambda text: None} | options)


@pytest.fixture(scope="module")
def finished(request, corpus, tmp_path_factory):
    """A grid of two cells with two seeds, done."""
    out = tmp_path_factory.mktemp("ablation")
    return quietly(str(request.config.rootpath / TINY), out, corpus, GRID, 2, SHORT), out


def test_command_takes_finished_runs_and_writes_every_table(aum, recipe, corpus, finished):
    before, out = finished
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    result = aum("ablate", "--recipe", recipe, "--data", corpus, "--grid", GRID[0], "--seeds", 2, "--set", SHORT[0], "--out", out, "--jobs", 1)
    assert result.code == 0 and "McNemar" in result.out, result.err
    assert len(trained) == 8 and trained == {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    written = json.loads((out / "ablation.json").read_text())
    for cell, name in zip(written["cells"], ("head", "mid"), strict=True):
        assert cell["overrides"] == [f"model.cls_position={name}"] and not cell["failures"]
        for seed in ("0", "1"):
            run = out / name / f"seed-{seed}"
            figures = json.loads((run / "eval-test.json").read_text())["metrics"]
            _, scores, targets = read_scores(run / "scores-test.npz")
            assert cell["scores"][seed] == figures["accuracy"] == (scores.argmax(1) == targets).mean()
            assert f'cls_position = "{name}"' in (run / "recipe.toml").read_text()
        assert cell["mean"] == pytest.approx((cell["scores"]["0"] + cell["scores"]["1"]) / 2)
    assert written["comparison"]["seeds"] == [0, 1] and written["comparison"]["clips"] == 6
    lines = [line for line in (out / "ablation.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 4 and lines[2].startswith("| head |") and lines[3].startswith("| mid |")
    rows = list(csv.DictReader((out / "ablation.csv").open()))
    assert [(row["cls_position"], float(row["mean"])) for row in rows] == [(cell["overrides"][0][19:], cell["mean"]) for cell in written["cells"]]


def test_several_jobs_give_the_same_runs_and_take_what_is_there(recipe, corpus, finished, tmp_path):
    before, out = finished
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    (tmp_path / "head" / "seed-1" / "report.json").unlink()       # as if killed after the last epoch
    shutil.rmtree(tmp_path / "mid" / "seed-1")
    after = ablate(recipe, tmp_path, corpus, GRID, 2, SHORT, jobs=2, say=lambda text: None)
    assert after.cells == before.cells and after.comparison == before.comparison
    for run in (f"{cell}/seed-{seed}" for cell in ("head", "mid") for seed in (0, 1)):
        assert (out / run / "best" / "model.safetensors").read_bytes() == (tmp_path / run / "best" / "model.safetensors").read_bytes()
        assert (tmp_path / run / "scores-test.npz").is_file()


def test_a_finished_run_is_taken_only_if_its_recipe_is_the_same(recipe, corpus, finished, tmp_path):
    before, out = finished
    run = tmp_path / "mid" / "seed-0"
    shutil.copytree(out / "mid" / "seed-0", run)

    def once(*overrides):
        cell, = quietly(recipe, tmp_path, corpus, ["model.cls_position=mid"], 1, overrides).cells
        return cell

    assert "another recipe" in once("train.epochs=2").failures[0]
    (run / "planned.toml").unlink()                               # as aum train leaves a run
    (run / "scores-test.npz").unlink()                            # as an older version does
    assert "another recipe" in once("train.epochs=2").failures[0]
    assert once(*SHORT).scores == {0: before.cells[1].scores[0]} and (run / "scores-test.npz").is_file()


def test_a_failed_cell_is_reported_and_the_rest_done(aum, recipe, corpus, tmp_path):
    result = aum("ablate", "--recipe", recipe, "--data", corpus, "--grid", "train.lr=0.005,1e30", "--seeds", 1, "--set", "train.epochs=2",
                 "--out", tmp_path, "--jobs", 1)
    assert result.code == 1 and "no number" in result.out
    good, bad = json.loads((tmp_path / "ablation.json").read_text())["cells"]
    assert good["mean"] is not None and bad["mean"] is None and "no number" in bad["failures"]["0"]


def test_architectures_are_compared_with_equal_parameters(aum, corpus, tmp_path):
    (tmp_path / "plain.toml").write_text(ARCHITECTURES)
    result = aum("ablate", "--recipe", tmp_path / "plain.toml", "--data", corpus, "--models", "aum,ast", "--seeds", 1, "--out", tmp_path / "a",
                 "--jobs", 1)
    assert result.code == 0, result.err
    written = json.loads((tmp_path / "a" / "ablation.json").read_text())
    ours, theirs = (cell["parameters"] for cell in written["cells"])
    step = 3 * (2 * 128 + 1)                                       # what one more unit of each perceptron has
    assert abs(ours - theirs) <= step / 2 and f"{ours:,}" in result.out and f"{theirs:,}" in result.out
    assert "no test is possible with one seed" in " ".join(result.out.split()) and written["comparison"]["clips"] == 6


def test_width_of_equal_parameters():
    overrides = ["model.architecture=ast"]
    width = equal_width("fsdd", overrides)
    aum = count_parameters(load_recipe("fsdd").model)
    off = [abs(aum - count_parameters(load_recipe("fsdd", [*overrides, f"model.mlp_width={width + i}"]).model)) for i in (-1, 0, 1)]
    assert off[1] == min(off)


@pytest.mark.parametrize("grid, models, words", [
    (["model.cls_position"], [], "key=value"), (["model.cls_position=head,"], [], "key=value"), (["model.nose=1,2"], [], "nose"),
    (["model.cls_position=head,left"], [], "left"), ([], ["aum", "cnn"], "cnn")])
def test_mistakes_are_named_before_anything_is_trained(recipe, corpus, tmp_path, grid, models, words):
    with pytest.raises(AumError, match=words):
        ablate(recipe, tmp_path, corpus, grid, 1, models=models)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def grid_of_four() -> Ablation:
    axes = [["a.b=x", "a.b=y"], ["a.c_d=1", "a.c_d=2"]]
    scores = [{0: 0.5, 1: 0.7}, {0: 0.9, 1: 0.9}, {0: 0.8}, {}]
    cells = [Cell(pair, each, {} if each else {0: "broken"}) for pair, each in zip(itertools.product(*axes), scores)]
    return Ablation("r", (), axes, 2, cells, "accuracy")


def test_best_of_row_and_of_all_in_every_format(grid_of_four, tmp_path):
    assert [grid_of_four.rank(cell) for cell in grid_of_four.cells] == [0, 2, 0, 0]
    grid_of_four.cells[3] = Cell(("a.b=y", "a.c_d=2"), {0: 0.6}, {})
    assert [grid_of_four.rank(cell) for cell in grid_of_four.cells] == [0, 2, 1, 0]
    write_ablation(grid_of_four, tmp_path)
    assert "| x | 60.00 ± 14.14 | **90.00 ± 0.00** * |\n| y | **80.00** | 60.00 |" in (tmp_path / "ablation.md").read_text()
    assert r"y & \textbf{80.00} & 60.00 \\" in (tmp_path / "ablation.tex").read_text()
    assert r"b / c\_d & 1 & 2 \\" in (tmp_path / "ablation.tex").read_text()
    assert r"\underline{\textbf{90.00 $\pm$ 0.00}}" in (tmp_path / "ablation.tex").read_text()


def test_heat_map_names_scores_and_failures(grid_of_four, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(picture, "save_figure", lambda figure, path: figures.append(figure))
    picture.plot_heat_map(grid_of_four, tmp_path / "x.png")
    axes = figures[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["60.00\n± 14.14", "90.00\n± 0.00", "80.00", "failed"]
    assert len(axes.patches) == 1 and [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]


def test_exact_test_is_mcnemars_for_one_seed_and_counts_signs_for_several():
    from scipy.stats import binomtest

    assert sign_flip_p(np.repeat([1, -1, 0], [8, 2, 90])) == pytest.approx(binomtest(8, 10).pvalue)
    differences = np.array([3, -1, 2, 2, 0, 1])
    sums = [abs(sum(sign * x for sign, x in zip(signs, differences))) for signs in itertools.product((1, -1), repeat=6)]
    assert sign_flip_p(differences) == pytest.approx(np.mean([each >= abs(differences.sum()) for each in sums]))
    assert sign_flip_p(np.zeros(3, int)) == 1.0


def test_weighted_precision_is_that_of_scikit_learn_with_ties():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    scores, targets = rng.random((60, 3)).round(1), (rng.random((60, 3)) < 0.4).astype(int)
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=4)
    theirs = [np.mean([average_precision_score(targets[:, i], scores[:, i], sample_weight=each) for i in range(3)]) for each in weights]
    np.testing.assert_allclose(weighted_map(scores, targets, weights), theirs)


def test_detectable_effect_has_its_power():
    from scipy.stats import nct, t

    for n in (5, 12):
        edge, shift = t.ppf(0.975, n - 1), detectable_effect(n) * n**0.5
        assert nct.sf(edge, n - 1, shift) + nct.cdf(-edge, n - 1, shift) == pytest.approx(0.8, abs=1e-3)
    assert detectable_effect(2) > detectable_effect(3) > detectable_effect(8)


def test_comparison_of_one_label_and_of_several():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(1)
    targets = rng.integers(0, 4, 200)
    good, poor = ([np.eye(4)[targets] + rng.normal(0, noise, (200, 4)) for _ in range(3)] for noise in (0.3, 0.8))
    values = tuple([float((each.argmax(1) == targets).mean()) for each in one] for one in (good, poor))
    found = compare("good", "poor", "accuracy", range(3), (good, poor), targets, values)
    assert (found.t, found.p_seeds) == pytest.approx(tuple(ttest_rel(*values)))
    assert found.interval_clips[0] > 0 and found.p_clips < 1e-6 and found.only_first > found.only_second
    assert found.only_first - found.only_second == round(200 * 3 * found.difference)
    assert "4 cases" not in " ".join(found.sentences()) and "3 seeds that scatter like these" in " ".join(found.sentences())
    same = compare("a", "b", "accuracy", range(3), (good, good), targets, (values[0], values[0]))
    assert same.p_clips == 1.0 and same.t is None and same.difference == 0.0
    several = np.eye(4, dtype=int)[targets]
    found = compare("good", "poor", "mAP", range(2), (good[:2], poor[:2]), several, ([0.9, 0.91], [0.6, 0.65]))
    assert found.only_first is None and found.p_clips < 0.01 and found.interval_clips[0] > 0 and "bootstrap, p" in " ".join(found.sentences())


def test_data_that_is_missing_is_said_once_before_anything(aum, tmp_path):
    refused = aum("ablate", "--recipe", RECIPE, "--data", tmp_path / "nowhere", "--seeds", 2, "--out", tmp_path / "out")
    assert refused.code == 2 and refused.err.count("not a prepared corpus") == 1 and not (tmp_path / "out").exists()
