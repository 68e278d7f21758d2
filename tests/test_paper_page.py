"""docs/paper.md: every command on it runs, on miniatures of corpora and models, and makes what the page says."""

import json
import re
import shlex
from pathlib import Path

import miniatures
import pytest

from aumcli.bench import network_config
from aumcli.paper import GRID, TABLE_2, TABLES, corpora_of, rows_of

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

PAGE = (Path(__file__).parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
IN_BLOCKS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M) for line in block.splitlines() if line
]
IN_TABLES = re.findall(r"^\| .* \| `(aum .*)` \|$", PAGE, re.M)
COMMANDS = sorted({*IN_BLOCKS, *IN_TABLES}, key=PAGE.index)
WORDS = {command: shlex.split(command)[1:] for command in COMMANDS}

ONE_BLOCK = [
    "--set",
    "train.epochs=1",
    "--set",
    f"model.width={miniatures.WIDTH}",
    "--set",
    "model.depth=1",
    "--device",
    "cpu",
]
SMALLER = {
    ("ablate",): [*ONE_BLOCK, "--seeds", "1", "--jobs", "1"],
    ("train", "--recipe", "as20k-ast", "--seed"): ONE_BLOCK,
    ("prepare", "speechcommands"): ["--source", "corpora/speechcommands"],  # which would be downloaded
    ("bench",): [
        "--models",
        "aum-tiny,ast-tiny-eager,aum-nano,ast-nano-eager",
        "--min-tokens",
        "16",
        "--max-tokens",
        "16",
        "--batch",
        "1",
        "--repeats",
        "1",
        "--memory-cap",
        "2",
        "--device",
        "cpu",
    ],
}


def option(command: str, name: str) -> str | None:
    words = WORDS[command]
    return words[words.index(name) + 1] if name in words else None


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with the corpora as their publishers lay them out, and the checkpoints."""
    root = tmp_path_factory.mktemp("paper")
    for make in (
        miniatures.audioset,
        miniatures.vggsound,
        miniatures.voxceleb1,
        miniatures.speechcommands,
        miniatures.epic_sounds,
    ):
        make(root / "corpora" / make.__name__)
    miniatures.vision_mamba(root / "vim_s_midclstok_80p5acc.pth")
    miniatures.deit(root / "deit_small_patch16_224.safetensors")
    return root


@pytest.fixture(scope="module")
def done() -> dict[str, str]:
    """What the commands that have run printed: one that is tested alone needs those before it."""
    return {}


@pytest.fixture
def page(aum, workplace, done, monkeypatch):
    """Run the page up to a command; gives what that one printed."""
    for name in (
        "train.loggers.plot_curves",
        "train.report.plot_curves",
        "train.report.plot_confusion",
        "evaluate.plot_confusion",
        "ablate.tables.plot_heat_map",
    ):
        monkeypatch.setattr(f"aumcli.{name}", lambda *args: None)  # they take longer than these trainings
    monkeypatch.chdir(workplace)

    def run(command: str) -> str:
        for each in COMMANDS[: COMMANDS.index(command) + 1]:
            if each not in done:
                words = WORDS[each]
                more = next((more for start, more in SMALLER.items() if tuple(words[: len(start)]) == start), [])
                result = aum(*words, *more)
                assert result.code == 0, (each, result.err)
                done[each] = result.out
        return done[command]

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=[command[:60] for command in COMMANDS])
def test_every_command_runs(page, command, workplace):
    printed = page(command)
    table = option(command, "--table")
    if table:
        number, corpora, rows = int(table), option(command, "--corpora"), option(command, "--rows")
        title = next(line for line in printed.splitlines() if line.startswith(f"Table {number}, "))
        assert "model.depth=1" in title and title.endswith("1 seed")
        for corpus in corpora_of(number):
            assert (f"{corpus} {'val' if corpus == 'epic_sounds' else 'test'} " in printed) == (
                corpora in (None, corpus)
            )
        for row in rows_of(number):
            assert (f"{row}, paper " in printed) == (rows in (None, row))
        part = "" if not (corpora or rows) else "only-" + re.sub(r"[^\w-]+", "-", corpora or rows).strip("-")
        assert (workplace / "ablations" / f"table-{number}" / part / "ablation.md").is_file()
    if command.startswith("aum bench"):
        measurements = json.loads((workplace / "figure-2" / "bench.json").read_text())["results"][0]["measurements"]
        assert {each["config"]["mode"] for each in measurements} == {"inference", "training"} and len(measurements) == 8
        assert (workplace / "figure-2" / "bench.png").is_file()


def test_there_is_a_command_for_each_table_each_row_each_grid_and_the_figure():
    whole = {
        option(command, "--table")
        for command in COMMANDS
        if not option(command, "--rows") and not option(command, "--corpora")
    }
    assert {"1", "2", "3", "4"} <= whole
    rows = {(option(command, "--table"), option(command, "--rows")) for command in COMMANDS}
    assert {(str(number), row) for number in (GRID, *TABLES) for row in rows_of(number)} <= rows
    assert {("2", corpus) for corpus in TABLE_2} <= {
        (option(command, "--table"), option(command, "--corpora")) for command in COMMANDS
    }
    (figure,) = [command for command in COMMANDS if command.startswith("aum bench")]
    models = option(figure, "--models").split(",")
    assert sorted(models) == ["ast-base-eager", "ast-small-eager", "aum-base", "aum-small"]
    assert all(network_config(model, int(option(figure, "--min-tokens")))[0].n_patches == 512 for model in models)
    assert (option(figure, "--mode"), option(figure, "--memory-cap")) == ("inference,training", "48") and option(
        figure, "--batch"
    )


def test_a_table_has_our_means_over_the_papers(page, workplace):
    page(
        next(
            command
            for command in COMMANDS
            if (option(command, "--table"), option(command, "--rows")) == ("4", "AST-B/16")
        )
    )
    written = json.loads((workplace / "ablations" / "table-4" / "ablation.json").read_text())
    assert written["table"] == 4 and [each["recipe"] for each in written["corpora"]] == list(corpora_of(4))
    epic = written["corpora"][-1]
    assert epic["split"] == "val" and epic["comparison"]["first"] == "AuM-B/16"
    assert epic["comparison"]["clips"] == 4 and epic["comparison"]["seeds"] == [0]
    assert [cell["paper"] for cell in epic["cells"]] == [
        {"mean": 0.4662, "std": 0.0004},
        {"mean": 0.4818, "std": 0.0013},
    ]
    for cell, run in zip(epic["cells"], ("epic_sounds-ast-from-audioset", "epic_sounds-from-audioset"), strict=True):
        evaluated = json.loads((workplace / "ablations" / "table-4" / run / "seed-0" / "eval-val.json").read_text())
        figures = evaluated["metrics"]
        assert cell["scores"] == {"0": figures["accuracy"]} and cell["mean"] == figures["accuracy"]
    lines = (workplace / "ablations" / "table-4" / "ablation.md").read_text().splitlines()
    columns = next(line for line in lines if line.startswith("| model |"))
    assert columns.strip("| ").split(" | ") == [
        "model",
        "vggsound test accuracy",
        "voxceleb1 test accuracy",
        "speechcommands test accuracy",
        "epic_sounds val accuracy",
    ]
    assert "| AST-B/16, paper | 44.17 ± 0.14 | 46.25 ± 1.08 | 90.37 ± 0.06 | 46.62 ± 0.04 |" in lines
    part = json.loads((workplace / "ablations" / "table-4" / "only-AST-B-16" / "ablation.json").read_text())
    assert [len(each["cells"]) for each in part["corpora"]] == [1, 1, 1, 1]  # beside the whole, not over it
    tex = (workplace / "ablations" / "table-4" / "ablation.tex").read_text()
    assert r"AuM-B/16, paper & 46.61 $\pm$ 0.18 & 40.72 $\pm$ 1.11 & 94.78 $\pm$ 0.04 & 48.18 $\pm$ 0.13 \\" in tex
    assert any(line.startswith("vggsound: ast runs start from ablations/table-1/audioset-ast/seed-0") for line in lines)
