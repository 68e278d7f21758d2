"""aum ablate: a row per cell, ordinary runs below; and what is significant.

The same command again continues where it stopped.
"""

import csv
import itertools
import json
import re
import shutil

import numpy as np
import pytest
from tiny import RECIPE

from aumcli.ablate import (
    Ablation,
    Cell,
    PaperTable,
    ablate,
    ablate_table,
    plan_ablation,
    plan_table,
    plot,
    print_result,
)
from aumcli.ablate.grid import Shared, make_grid, matched_mlp_width, parse_axes, table_grids
from aumcli.ablate.significance import compare, sign_flip_p, weighted_map
from aumcli.ablate.tables import write_ablation, write_table
from aumcli.core import count_parameters
from aumcli.errors import AumError
from aumcli.evaluate import read_scores
from aumcli.paper import Published
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

TINY = "tests/fixtures/tiny.toml"
GRID = ["model.cls_position=head,mid"]
SHORT = ["train.epochs=1"]
ARCHITECTURES = (
    "[data]\ninfer = ['clip_length', 'normalisation']\n[frontend]\nn_mels = 32\n"
    "[model]\nsize = 'nano'\npatch_mels = 32\npatch_frames = 4\n[train]\nepochs = 1\n"
)


@pytest.fixture
def recipe(request) -> str:
    return str(request.config.rootpath / TINY)


def run_grid(*arguments, **options) -> Ablation:
    return ablate(plan_ablation(*arguments, **options), jobs=1)


@pytest.fixture(scope="module")
def finished(request, corpus, tmp_path_factory):
    """A grid of two cells with two seeds, done."""
    out = tmp_path_factory.mktemp("ablation")
    return run_grid(str(request.config.rootpath / TINY), out, corpus, GRID, 2, SHORT), out


def test_command_takes_finished_runs_and_writes_every_table(aum, recipe, corpus, finished):
    before, out = finished
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    result = aum(
        "ablate",
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--grid",
        GRID[0],
        "--seeds",
        2,
        "--set",
        SHORT[0],
        "--out",
        out,
        "--jobs",
        1,
    )
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
    assert [(row["cls_position"], float(row["mean"])) for row in rows] == [
        (cell["overrides"][0][19:], cell["mean"]) for cell in written["cells"]
    ]


def test_several_jobs_give_the_same_runs_and_take_what_is_there(recipe, corpus, finished, tmp_path):
    before, out = finished
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    (tmp_path / "head" / "seed-1" / "report.json").unlink()  # as if killed after the last epoch
    shutil.rmtree(tmp_path / "mid" / "seed-1")
    after = ablate(plan_ablation(recipe, tmp_path, corpus, GRID, 2, SHORT), jobs=2)
    assert after.cells == before.cells and after.comparison == before.comparison
    for run in (f"{cell}/seed-{seed}" for cell in ("head", "mid") for seed in (0, 1)):
        assert (out / run / "best" / "model.safetensors").read_bytes() == (
            tmp_path / run / "best" / "model.safetensors"
        ).read_bytes()
        assert (tmp_path / run / "scores-test.npz").is_file()


def test_a_finished_run_is_taken_only_if_its_recipe_is_the_same(recipe, corpus, finished, tmp_path):
    before, out = finished
    run = tmp_path / "mid" / "seed-0"
    shutil.copytree(out / "mid" / "seed-0", run)

    def once(*overrides):
        (cell,) = run_grid(recipe, tmp_path, corpus, ["model.cls_position=mid"], 1, overrides).cells
        return cell

    assert "another recipe" in once("train.epochs=2").failures[0]
    (run / "planned.toml").unlink()  # as aum train leaves a run
    (run / "scores-test.npz").unlink()  # as an older version does
    assert "another recipe" in once("train.epochs=2").failures[0]
    assert once(*SHORT).scores == {0: before.cells[1].scores[0]} and (run / "scores-test.npz").is_file()


def test_a_failed_cell_is_reported_and_the_rest_done(aum, recipe, corpus, tmp_path):
    result = aum(
        "ablate",
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--grid",
        "train.lr=0.005,1e30",
        "--seeds",
        1,
        "--set",
        "train.epochs=2",
        "--out",
        tmp_path,
        "--jobs",
        1,
    )
    assert result.code == 1 and "loss" in result.out
    good, bad = json.loads((tmp_path / "ablation.json").read_text())["cells"]
    assert good["mean"] is not None and bad["mean"] is None and "loss" in bad["failures"]["0"]


def test_architectures_are_compared_with_equal_parameters(aum, corpus, tmp_path):
    (tmp_path / "plain.toml").write_text(ARCHITECTURES)
    result = aum(
        "ablate",
        "--recipe",
        tmp_path / "plain.toml",
        "--data",
        corpus,
        "--models",
        "aum,ast",
        "--seeds",
        1,
        "--out",
        tmp_path / "a",
        "--jobs",
        1,
    )
    assert result.code == 0, result.err
    written = json.loads((tmp_path / "a" / "ablation.json").read_text())
    ours, theirs = (cell["parameters"] for cell in written["cells"])
    step = 3 * (2 * 128 + 1)  # parameters of one more unit of each MLP
    assert abs(ours - theirs) <= step / 2 and f"{ours:,}" in result.out and f"{theirs:,}" in result.out
    assert "no test is possible with one seed" in " ".join(result.out.split()) and written["comparison"]["clips"] == 6


def test_width_of_equal_parameters():
    overrides = ["model.architecture=ast"]
    width = matched_mlp_width("fsdd", overrides)
    aum = count_parameters(load_recipe("fsdd").model)
    off = [
        abs(aum - count_parameters(load_recipe("fsdd", [*overrides, f"model.mlp_width={width + i}"]).model))
        for i in (-1, 0, 1)
    ]
    assert off[1] == min(off)


@pytest.mark.parametrize(
    "grid, models, words",
    [
        (["model.cls_position"], [], "key=value"),
        (["model.cls_position=head,"], [], "key=value"),
        (["model.nose=1,2"], [], "nose"),
        (["model.cls_position=head,left"], [], "left"),
        ([], ["aum", "cnn"], "cnn"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(recipe, corpus, tmp_path, grid, models, words):
    with pytest.raises(AumError, match=words):
        plan_ablation(recipe, tmp_path, corpus, grid, 1, models=models)
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
    assert (
        "| x | 60.00 ± 14.14 | **90.00 ± 0.00** * |\n| y | **80.00** | 60.00 |"
        in (tmp_path / "ablation.md").read_text()
    )
    assert r"y & \textbf{80.00} & 60.00 \\" in (tmp_path / "ablation.tex").read_text()
    assert r"b / c\_d & 1 & 2 \\" in (tmp_path / "ablation.tex").read_text()
    assert r"\underline{\textbf{90.00 $\pm$ 0.00}}" in (tmp_path / "ablation.tex").read_text()


def test_heat_map_names_scores_and_failures(grid_of_four, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    plot.plot_heat_map(grid_of_four, tmp_path / "x.png")
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
    theirs = [
        np.mean([average_precision_score(targets[:, i], scores[:, i], sample_weight=each) for i in range(3)])
        for each in weights
    ]
    np.testing.assert_allclose(weighted_map(scores, targets, weights), theirs)


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
    assert "paired t(2)" in " ".join(found.sentences())
    same = compare("a", "b", "accuracy", range(3), (good, good), targets, (values[0], values[0]))
    assert same.p_clips == 1.0 and same.t is None and same.difference == 0.0
    several = np.eye(4, dtype=int)[targets]
    found = compare("good", "poor", "mAP", range(2), (good[:2], poor[:2]), several, ([0.9, 0.91], [0.6, 0.65]))
    assert (
        found.only_first is None
        and found.p_clips < 0.01
        and found.interval_clips[0] > 0
        and "bootstrap, p" in " ".join(found.sentences())
    )


def test_data_that_is_missing_is_said_once_before_anything(aum, tmp_path):
    refused = aum("ablate", "--recipe", RECIPE, "--data", tmp_path / "nowhere", "--seeds", 2, "--out", tmp_path / "out")
    assert refused.code == 2 and refused.err.count("not a prepared corpus") == 1 and not (tmp_path / "out").exists()


# the split that is reported


def test_a_split_that_the_data_lack_is_refused_before_anything_is_trained(aum, recipe, corpus, tmp_path):
    refused = aum(
        "ablate",
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--grid",
        GRID[0],
        "--set",
        "data.test=dev",
        "--out",
        tmp_path / "out",
    )
    assert refused.code == 2 and "no split 'dev' to report results on; it has test, train, val" in refused.err
    assert "--set data.test=val --set data.val_fraction=0.1" in refused.err and not (tmp_path / "out").exists()
    refused = aum(
        "ablate", "--recipe", recipe, "--data", corpus, "--grid", "data.test=test,dev", "--out", tmp_path / "out"
    )
    assert refused.code == 2 and "'dev'" in refused.err and not (tmp_path / "out").exists()


def test_everything_follows_the_reported_split(aum, recipe, corpus, tmp_path):
    result = aum(
        "ablate",
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--grid",
        "model.cls_position=mid",
        "--seeds",
        1,
        "--jobs",
        1,
        "--set",
        SHORT[0],
        "--set",
        "data.test=val",
        "--set",
        "data.val_fraction=0.2",
        "--out",
        tmp_path,
    )
    assert result.code == 0 and "val accuracy (%)" in result.out and "choose the epoch" not in result.out, result.err
    run = tmp_path / "mid" / "seed-0"
    assert (
        (run / "eval-val.json").is_file()
        and (run / "scores-val.npz").is_file()
        and not (run / "eval-test.json").exists()
    )
    written = json.loads((tmp_path / "ablation.json").read_text())
    assert (written["split"], written["leaks"]) == ("val", [])
    assert written["cells"][0]["scores"]["0"] == json.loads((run / "eval-val.json").read_text())["metrics"]["accuracy"]
    assert "val accuracy (%)" in (tmp_path / "ablation.md").read_text()


def test_reported_clips_that_choose_the_epoch_are_noted_and_no_other_clips_are_compared(recipe, corpus, tmp_path):
    found = run_grid(recipe, tmp_path, corpus, ["data.test=val,test"], 1, SHORT)
    assert (found.split, found.leaks, found.comparison) == ("reported", ["choose the epoch"], None)
    assert "the reported clips also choose the epoch" in (tmp_path / "ablation.md").read_text()
    assert (tmp_path / "val" / "seed-0" / "eval-val.json").is_file() and (
        tmp_path / "test" / "seed-0" / "eval-test.json"
    ).is_file()


# starts, and grids of paths


def test_each_architecture_starts_from_its_checkpoint(aum, corpus, finished, tmp_path):
    run = finished[1] / "mid" / "seed-0"
    shape = (
        "--set",
        "model.width=16",
        "--set",
        "model.depth=2",
        "--set",
        "model.state_size=4",
        "--set",
        "train.epochs=1",
    )
    (tmp_path / "plain.toml").write_text(ARCHITECTURES.replace("size = 'nano'\n", ""))
    common = (
        "ablate",
        "--recipe",
        tmp_path / "plain.toml",
        "--data",
        corpus,
        *shape,
        "--grid",
        "model.cls_position=mid",
        "--seeds",
        1,
        "--jobs",
        1,
        "--out",
        tmp_path / "a",
    )
    result = aum(*common, "--init", f"aum={run}", "--init", f"ast={run}")
    assert result.code == 0, result.err
    assert load_recipe(tmp_path / "a" / "mid" / "seed-0" / "recipe.toml").train.init == str(run)
    assert f"aum runs start from {run}." in (tmp_path / "a" / "ablation.md").read_text()
    for wrong, words in (
        ("aum", "not ARCHITECTURE=PATH"),
        (f"cnn={run}", "not ARCHITECTURE=PATH"),
        ("aum=nowhere.pth", "no such file"),
    ):
        refused = aum(*common, "--init", wrong)
        assert refused.code == 2 and words in refused.err


def test_runs_that_need_a_start_are_refused_without(aum, recipe, corpus, tmp_path):
    refused = aum(
        "ablate",
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--set",
        "train.pretrained=the weights of X",
        "--out",
        tmp_path / "out",
    )
    assert refused.code == 2 and "aum from the weights of X" in refused.err and "--init aum=PATH" in refused.err
    assert not (tmp_path / "out").exists()


def test_values_that_are_paths_stay_below_the_folder(recipe, tmp_path):
    grid = make_grid(recipe, tmp_path / "out", None, parse_axes(["train.init=/a/b,../../c"]), Shared(1))
    assert [run.folder for run in grid.runs] == [
        tmp_path / "out" / "-a-b" / "seed-0",
        tmp_path / "out" / "..-..-c" / "seed-0",
    ]


# the paper's tables


def test_the_grid_of_table_2_has_the_papers_figures_beside_it(tmp_path):
    def published(recipe, grid, *overrides):
        planned = make_grid(recipe, tmp_path, None, parse_axes(grid), Shared(1, overrides))
        return [variant[0].published and variant[0].published.mean for variant in planned.variants]

    assert published("as20k", ["model.direction=Fo-Fo,Bi-Bi", "model.cls_position=head,end"]) == [
        0.0048,
        0.119,
        0.0497,
        0.1111,
    ]
    assert published("vggsound", ["model.cls_position=head,mid,end"]) == [0.4091, 0.4258, 0.4041]
    assert published("vggsound", ["model.cls_position=mid"], "model.direction=Bi-Bi", "train.epochs=1") == [0.3648]
    assert published("fsdd", ["model.cls_position=mid"]) == [None]  # not the paper's corpus
    assert published("vggsound", ["train.lr=1e-4,1e-5"]) == [None, None]  # nor its question
    assert published("vggsound", ["model.architecture=ast,aum"]) == [None, None]


def test_a_table_is_made_of_published_recipes(tmp_path):
    one, two = table_grids(
        1, tmp_path, tmp_path / "data", ("as20k", "epic_sounds"), ("AST-B/16", "AuM-B/16"), Shared(3)
    )
    rival, ours = one.variants
    assert [run.seed for run in rival] == [0, 1, 2] and rival[0].recipe == load_recipe(
        "as20k-ast"
    )  # not of equal parameters
    assert ours[2].recipe == load_recipe("as20k", ["seed=2"]) and ours[2].folder == tmp_path / "as20k" / "seed-2"
    assert rival[0].published == Published(0.1041, 0.0032, "mAP") and rival[0].data == tmp_path / "data" / "as20k"
    assert {run.recipe.data.reported for run in two.runs} == {"val"}
    (grid,) = table_grids(2, tmp_path, tmp_path, ("vggsound",), ("Fo-Bi",), Shared(1, ("train.epochs=1",)))
    assert [run.folder.relative_to(tmp_path).as_posix() for run in grid.runs] == [
        f"vggsound/Fo-Bi_{position}/seed-0" for position in ("head", "mid", "end")
    ]
    assert all(
        run.recipe == load_recipe("vggsound", ["train.epochs=1", f"model.cls_position={name}"])
        for run, name in zip(grid.runs, ("head", "mid", "end"), strict=True)
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--table", 5), "choose 1, 2, 3 or 4"),
        (("--table", 1, "--grid", GRID[0]), "--table brings its own"),
        (("--table", 1, "--models", "aum,ast"), "--table brings its own"),
        (("--corpora", "as20k"), "name it: --table 1"),
        (("--table", 4, "--corpora", "as20k"), "Table 4 has no 'as20k'"),
        (("--table", 2, "--corpora", "vgsound"), "did you mean vggsound?"),
        (("--table", 1, "--rows", "AuM-B"), "did you mean AuM-B/16?"),
    ],
)
def test_mistakes_in_a_table_are_named(aum, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused = aum("ablate", *arguments)
    assert refused.code == 2 and words in refused.err and not list(tmp_path.iterdir())


def test_corpora_that_are_not_prepared_are_named_with_their_commands(aum, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(corpus, tmp_path / "data" / "vggsound")
    refused = aum("ablate", "--table", 4)
    assert refused.code == 2 and "data/voxceleb1, data/speechcommands, data/epic_sounds" in refused.err
    assert "aum prepare voxceleb1; aum prepare speechcommands; aum prepare epic_sounds; or" in refused.err
    assert "--corpora vggsound" in refused.err and not (tmp_path / "ablations").exists()
    refused = aum("ablate", "--table", 4, "--data", "elsewhere")
    assert "aum prepare vggsound --out elsewhere/vggsound" in refused.err and "--corpora" not in refused.err
    refused = aum("ablate", "--table", 4, "--corpora", "vggsound")  # prepared, but what it starts from lacks
    assert (
        refused.code == 2 and "--init ast=PATH --init aum=PATH" in refused.err and not (tmp_path / "ablations").exists()
    )


def paper_table(tmp_path, metric="mAP") -> PaperTable:
    cells = [
        Cell((f"model={name}",), {0: score, 1: score + 0.02}, {}, 10, Published(mean, 0.01, "mAP"))
        for name, score, mean in (("AST-B/16", 0.1, 0.1041), ("AuM-B/16", 0.13, 0.1328))
    ]
    axes = [["model=AST-B/16", "model=AuM-B/16"]]
    return PaperTable(
        1,
        [
            Ablation("as20k", (), axes, 2, cells, metric, table=1),
            Ablation(
                "epic_sounds",
                (),
                axes,
                2,
                [Cell(cell.overrides, {}, {0: "broken"}) for cell in cells],
                split="val",
                table=1,
            ),
        ],
        tmp_path,
    )


def test_a_table_in_every_format(tmp_path, capsys):
    made = paper_table(tmp_path)
    write_table(made)
    print_result(made)
    printed = capsys.readouterr().out
    assert "AST-B/16, paper  10.41 ± 1.00" in printed and "failed: epic_sounds: AuM-B/16, seed 0: broken" in printed
    page = (tmp_path / "ablation.md").read_text()
    assert (
        "| model | as20k test mAP | epic_sounds val score |\n| --- | --- | --- |\n"
        "| AST-B/16 | 11.00 ± 1.41 | failed |\n"
        "| AST-B/16, paper | 10.41 ± 1.00 | - |\n| AuM-B/16 | **14.00 ± 1.41** * | failed |"
    ) in page
    assert "| AuM-B/16 | **14.00 ± 1.41** * | 13.28 ± 1.00 | 13.00 15.00 | 10 |" in page
    rows = list(csv.DictReader((tmp_path / "ablation.csv").open()))
    assert [(row["corpus"], row["model"], row["paper_mean"]) for row in rows] == [
        ("as20k", "AST-B/16", "0.1041"),
        ("as20k", "AuM-B/16", "0.1328"),
        ("epic_sounds", "AST-B/16", ""),
        ("epic_sounds", "AuM-B/16", ""),
    ]
    assert r"AuM-B/16, paper & 13.28 $\pm$ 1.00 & - \\" in (tmp_path / "ablation.tex").read_text()
    assert json.loads((tmp_path / "ablation.json").read_text())["corpora"][0]["cells"][1]["paper"] == {
        "mean": 0.1328,
        "std": 0.01,
    }


def test_a_map_of_the_papers_does_not_stand_beside_an_accuracy(tmp_path):
    write_table(paper_table(tmp_path, metric="accuracy"))
    assert (
        "paper |" not in (tmp_path / "ablation.md").read_text()
        and "13.28" not in (tmp_path / "ablation.csv").read_text()
    )


def test_a_table_from_python_and_again_by_parts(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "data" / "vggsound")
    small = ["train.epochs=1", "model.width=48", "model.depth=1", "frontend.frames=64"]
    plan = plan_table(1, tmp_path / "out", tmp_path / "data", ["vggsound"], seeds=1, overrides=small)
    made = ablate_table(plan, jobs=1)
    (result,) = made.results
    assert (
        made.folder == tmp_path / "out" / "only-vggsound" and not made.failed and result.comparison.first == "AuM-B/16"
    )
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.safetensors")}
    plan = plan_table(1, tmp_path / "out", tmp_path / "data", ["vggsound"], ["AST-B/16"], 1, small)
    again = ablate_table(plan, jobs=1)
    assert again.folder.name == "only-vggsound_AST-B-16" and again.results[0].cells == result.cells[:1]
    assert trained == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.safetensors")}


def test_draws_without_any_positive_clip_do_not_spoil_the_bootstrap():
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 0]])
    scores = np.random.default_rng(0).random((2, 4, 2))
    weights = np.array([[1, 1, 1, 1], [0, 2, 1, 1]])
    found = weighted_map(scores[0], targets, weights)
    assert np.isfinite(found).tolist() == [True, False]
    interval = compare("a", "b", "mAP", [0], ([scores[0]], [scores[1]]), targets, ([0.5], [0.4])).interval_clips
    assert np.isfinite(interval).all()


def test_a_dry_run_says_what_is_to_do_and_writes_nothing(aum, recipe, corpus, finished, tmp_path):
    arguments = (
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--grid",
        "model.cls_position=head,mid",
        "--seeds",
        2,
        "--dry-run",
    )
    result = aum("ablate", *arguments, "--out", tmp_path / "new")
    assert result.code == 0 and not (tmp_path / "new").exists(), result.err
    *variants, last = result.out.splitlines()
    assert [line.partition(":")[0] for line in variants] == ["head", "mid"] and all(
        "2 of 2 seeds to do" in line for line in variants
    )
    assert last.startswith("4 runs, 0 done, 4 to do") and re.search(r"about [\d.]+ (s|min)", last)


def test_a_dry_run_counts_what_is_done(aum, recipe, corpus, tmp_path):
    arguments = (
        "ablate",
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--grid",
        "model.cls_position=head,mid",
        "--out",
        tmp_path / "new",
    )
    assert aum(*arguments, "--seeds", 1).code == 0
    lines = aum(*arguments, "--seeds", 1, "--dry-run").out.splitlines()
    assert lines[:2] == ["head: done", "mid: done"] and "2 done, 0 to do" in lines[2]
    assert "1 of 2 seeds to do" in aum(*arguments, "--seeds", 2, "--dry-run").out


def test_a_dry_run_meets_what_the_runs_would(aum, recipe, corpus, tmp_path):
    result = aum(
        "ablate",
        "--recipe",
        recipe,
        "--data",
        corpus,
        "--grid",
        "model.cls_position=head,mid",
        "--set",
        "data.test=none-such",
        "--out",
        tmp_path / "new",
        "--dry-run",
    )
    assert result.code == 2 and "none-such" in result.err
