"""aum info of a run, of a model and of the paper's tables: what is shown, and that the calls shown work."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from tiny import CLASSES, tiny

from aumcli import paper
from aumcli.checkpoints import read_config, write_config
from aumcli.cli import app
from aumcli.info import page_name, published, published_lines
from aumcli.info.published import PAGES, SETTINGS
from aumcli.info.recipes import nearest_recipe
from aumcli.recipe import load_recipe, recipe_names
from aumcli.utils.files import read_json, write_json

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
DOCS = Path(__file__).parents[1] / "docs" / "paper.md"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def run(trained) -> Path:
    """A copy of a run that a test may change, in runs/."""
    shutil.copytree(trained, "runs/tones", ignore=shutil.ignore_patterns("eval-*"))  # other tests evaluate it
    return Path("runs/tones")


def commands(text: str) -> list[list[str]]:
    """The words of the calls that a page shows."""
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  aum ")]


def assert_parses(words: list[str]) -> None:
    """A call has a command and options that there are, with values of their kinds."""
    name, command = words[1], typer.main.get_command(app).commands[words[1]]
    with command.make_context(name, words[2:]) as context:
        assert context.params


def value_of(page: str, what: str) -> str:
    """What stands behind a name on a page, in one line."""
    match = re.search(rf"^{what} {{2,}}(.*(?:\n {{5,}}.*)*)", page, re.M)
    return re.sub(r"\s+", " ", match[1]) if match else ""


# a run


def test_a_run(aum, run, corpus):
    assert aum("eval", run).code == 0
    result = aum("info", run)
    page, report = result.out, read_json(run / "report.json")
    assert result.code == 0 and page.startswith("runs/tones: a run, ")
    assert value_of(page, "classes") == f"3 classes: {', '.join(CLASSES)}"
    assert "8,000 Hz" in value_of(page, "input") and "32 mel bands" in value_of(page, "frontend")
    metrics = read_json(run / "eval-test.json")["metrics"]
    low, high = (f"{100 * each:.2f}" for each in metrics["accuracy_ci95"])
    test = value_of(page, "test")
    assert f"accuracy {100 * metrics['accuracy']:.2f} %" in test and f"{low} to {high} %" in test and "6 clips" in test
    assert str(corpus) in test
    assert f"accuracy {100 * report['metrics']['accuracy']:.2f} %" in value_of(
        page, "validation"
    ) and "(val)" in value_of(page, "validation")
    training = value_of(page, "training")
    assert (
        "seed 0" in training
        and "12 epochs of 12" in training
        and f"of epoch {read_config(run / 'best').provenance['epoch']}" in training
    )
    assert "18 clips to train on" in value_of(page, "data") and value_of(page, "start") == "fresh weights"
    assert "runs/tones/recipe.toml" in value_of(page, "recipe")
    assert f"torch {report['environment']['torch']}" in value_of(page, "made with") and "backend on cpu" in value_of(
        page, "made with"
    )
    assert "parameters" in value_of(page, "size") and "KiB" in value_of(page, "files")
    assert [words[1] for words in commands(page)] == ["eval", "predict"]
    assert aum(*commands(page)[0][1:]).code == 0
    assert max(map(len, page.splitlines())) <= 120 + len(str(corpus))


def test_as_json_it_is_the_configuration(aum, trained):
    document = json.loads(aum("info", trained, "--json").out)
    assert document["labels"] == list(CLASSES) and document["provenance"]["epoch"]


def test_what_is_not_known_is_left_out(aum, run):
    """As of a model of another version, or of one whose run is gone."""
    config = read_config(run / "best")
    write_config("model", config.model_copy(update={"provenance": {}, "thresholds": None}))
    shutil.copy(run / "best" / "model.safetensors", "model")
    page = aum("info", "model").out
    assert page.startswith("model: a model directory")
    names = set(re.findall(r"^(\w[\w ]*?)  ", page, re.M))
    assert names == {"classes", "scores", "input", "frontend", "longer clips", "size", "files"}
    assert "None" not in page and commands(page)[0] == ["aum", "eval", "model", "--data", "data/NAME"]


def test_where_it_comes_from(aum, run):
    config = read_config(run / "best")
    imported = {"imported_from": "as.pth", "kind": "AuM of its authors", "head": "new"}
    write_config("model", config.model_copy(update={"provenance": imported}))
    shutil.copy(run / "best" / "model.safetensors", "model")
    assert value_of(aum("info", "model").out, "imported") == "from as.pth (AuM of its authors), its head new"
    text = (run / "recipe.toml").read_text(encoding="utf-8")
    (run / "recipe.toml").write_text(text.replace('init = ""', 'init = "models/as"'), encoding="utf-8")
    assert value_of(aum("info", run).out, "start") == "from models/as"


def test_older_reports_have_no_intervals(aum, run):
    report = read_json(run / "report.json")
    report["metrics"] = {key: value for key, value in report["metrics"].items() if "ci95" not in key}
    del report["environment"], report["reported"]
    write_json(run / "report.json", report)
    page = aum("info", run).out
    assert "accuracy" in value_of(page, "validation") and "interval" not in page and "torch" not in page


def test_a_damaged_report_is_said(aum, run):
    (run / "eval-test.json").write_text("{")
    result = aum("info", run)
    assert result.code == 0 and "eval-test.json" in value_of(result.out, "warning")


def test_the_last_epoch_has_not_the_figures_of_the_best(aum, run):
    assert aum("eval", run).code == 0
    page = aum("info", run / "last").out
    assert "a model directory" in page and not value_of(page, "test") and "interval" not in page


def test_a_run_that_was_stopped_says_how_to_go_on(aum, run):
    (run / "report.json").unlink()
    page = aum("info", run).out
    assert commands(page)[0] == ["aum", "train", "--resume", "--out", "runs/tones"] and "12 epochs of 12" in value_of(
        page, "training"
    )


def test_many_classes_are_folded_and_no_name_commands_the_terminal(aum, run):
    config = read_config(run / "best")
    labels = ("a\x1b[31m", *(f"class {i}" for i in range(1, 300)))
    model = config.model.model_copy(update={"n_classes": 300})
    write_config("model", config.model_copy(update={"labels": labels, "model": model, "thresholds": None}))
    shutil.copy(run / "best" / "model.safetensors", "model")
    classes = value_of(aum("info", "model").out, "classes")
    assert (
        classes.startswith("300 classes: ")
        and "and 288 more" in classes
        and len(classes) < 250
        and "\x1b" not in classes
    )


def test_a_packaged_model_by_its_folder(aum):
    folder = json.loads(aum("info", "digits", "--json").out)["packaged_model"]["folder"]
    page = aum("info", folder).out
    assert (
        "487,098 parameters" in page
        and value_of(page, "recipe") == "digits"
        and "99.07 %" in value_of(page, "validation")
    )


# recipes


@pytest.mark.parametrize("name", ["quickstart", "synth", "vggsound-ast", "fsdd"])
def test_the_recipe_of_a_run_is_recognised(name):
    fitted = load_recipe(name).with_values(data={"infer": ()}, train={"epochs": 2})
    assert nearest_recipe(load_recipe(name)) == (name, [])
    assert nearest_recipe(fitted) == (name, ["train.epochs = 2"])


def test_a_recipe_of_ones_own_is_none_of_ours():
    assert nearest_recipe(tiny()) is None


@pytest.mark.parametrize(
    "name, near",
    [
        ("tones", "runs/tones"),
        ("runs/tonse", "runs/tones"),
        ("tabel1", "table1"),
        ("digit", "digits"),
        ("figure3", "figure2"),
        ("recipe", "recipes"),
        ("vgsound", "vggsound"),
    ],
)
def test_near_misses(aum, run, name, near):
    result = aum("info", name)
    assert result.code == 2 and re.search(rf"did you mean [^?]*\b{re.escape(near)}\b[^?]*\?", result.err), result.err


def test_a_run_without_a_finished_epoch_says_so(aum):
    Path("runs/new").mkdir(parents=True)
    result = aum("info", "runs/new")
    assert result.code == 2 and "has not finished an epoch" in result.err


# the paper


@pytest.mark.parametrize("name", PAGES)
def test_every_call_of_a_page_parses_and_those_of_tables_stand_in_the_docs(aum, name):
    shown = commands(aum("info", name).out)
    for words in shown:
        assert_parses(words)
    text = DOCS.read_text(encoding="utf-8")
    documented = [shlex.split(line) for line in re.findall(r"^(?:\| .* \| `)?(aum [^`\n]*?)`?(?: \|)?$", text, re.M)]
    tried = [
        words for words in shown if words[1] in ("ablate", "bench", "prepare")
    ]  # tests/test_paper_page.py runs these
    assert tried and all(words in documented for words in tried)
    assert all(words[words.index("--recipe") + 1] in recipe_names() for words in shown if "--recipe" in words)


@pytest.mark.parametrize("name", ["table2", "table4"])
def test_the_dry_run_of_a_page_runs(aum, name):
    (words,) = [words for words in commands(aum("info", name).out) if words[-1] == "--dry-run"]
    result = aum(*words[1:])
    assert result.code == 0 and "is not prepared" in result.out


def test_each_row_has_its_recipe_and_what_the_paper_reports(aum):
    page = aum("info", "table1").out
    lines = [line.split() for line in page.splitlines()]
    assert ["AuM-B/16", "as20k", "mAP", "13.28", "±", "1.07"] in lines
    assert ["AST-B/16", "speechcommands-ast", "accuracy", "85.27", "±", "1.07"] in lines
    assert ["Fo-Bi", "vggsound", "mid", "accuracy", "42.58", "±", "0.28"] in [
        line.split() for line in aum("info", "table2").out.splitlines()
    ]
    for number in (1, 2, 3, 4):
        cells = published(f"table{number}")["cells"]
        assert len(cells) == {1: 12, 2: 18, 3: 12, 4: 8}[number]
        for cell in cells:
            assert load_recipe(cell["recipe"], cell["settings"]).data.corpus == cell["corpus"]


def test_tables_from_weights_name_them(aum):
    assert "vim_s_midclstok_80p5acc.pth" in aum("info", "table3").out
    assert "Needed before" not in aum("info", "table1").out


def test_table_5_marks_what_differs(aum):
    page = aum("info", "table5").out
    assert re.search(r"^batch size .*128\*", page, re.M) and "speechcommands batch size 12\n" in page
    table = published("table5")["settings"]
    assert table.keys() == paper.TABLE_5.keys() == SETTINGS.keys()
    assert table["mean"]["vggsound"] == {"recipe": "-5.077", "paper": "5.077"} and table["rate"]["as20k"] == {
        "recipe": "5e-5"
    }


def test_figure_2_says_what_the_paper_does(aum):
    page = aum("info", "figure2").out
    assert all(text in page for text in paper.FIGURE_2) and commands(page)[0][:2] == ["aum", "bench"]


def test_tables_are_data_too(aum):
    document = json.loads(aum("info", "table3", "--json").out)
    assert document["cells"][0]["published"] == {"mean": 0.4032, "std": 0.0008} and document["commands"]


@pytest.mark.parametrize("name, page", [("Table-1", "table1"), ("fig2", "figure2"), ("table6", ""), ("synth", "")])
def test_names_of_pages(name, page):
    assert page_name(name) == page


def test_tables_fit_into_80_columns_but_for_calls():
    for name in PAGES:
        lines = published_lines(published(name))
        table = [line for line in lines[1:] if not line.startswith(("  ", "Needed before", "The ", "* "))]
        assert max(map(len, table)) <= 80, name
