"""The command line: exit codes, what is printed, and one message with a fix for every bad input."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, RATE_HZ, RECIPE, sound, sounds

from aumcli.cli import app
from aumcli.data.manifest import read_manifest
from aumcli.recipe import load_recipe, recipe_names
from aumcli.utils.files import temporary_path, write_json

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("AUM_MODEL", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def own_corpus(tmp_path) -> Path:
    """A prepared folder that a test may spoil."""
    from aumcli.prepare import prepare

    prepare("folder", tmp_path / "data", source=sounds(tmp_path / "sounds", 10), split="60/20/20")
    return tmp_path / "data"


def fill_disk(path: Path) -> None:
    """Make writing `path` meet a disk that is really full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary_path(path).symlink_to("/dev/full")


def assert_mistake(result, *expected: object, code: int = 2) -> None:
    """One message on standard error that names what is wrong and what mends it; nothing on standard output."""
    assert result.code == code, result
    assert "error: " in result.err and "fix: " in result.err, result.err
    for text in expected:
        assert str(text) in result.err, (text, result.err)


# starting


def run(*arguments, **kwargs):
    return subprocess.run([sys.executable, "-m", "aumcli", *arguments], capture_output=True, text=True, **kwargs)


def test_help_is_quick():
    """Under 0.3 s on a machine that has nothing else to do, so processor time is what counts."""
    script, used_s = Path(sys.executable).with_name("aum"), []
    command = [script, "--help"] if script.exists() else [sys.executable, "-m", "aumcli", "--help"]
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0 and "Audio Mamba" in result.stdout
        used_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(used_s) < 0.3


def test_no_help_loads_anything_heavy():
    code = f"""
import sys
from aumcli.cli import app
for arguments in [["--help"], []] + [[name, "--help"] for name in {COMMANDS}]:
    try: app(arguments)
    except SystemExit as end: assert end.code in (0, None) or arguments == [], (arguments, end.code)
heavy = {{"torch", "numpy", "pandas", "matplotlib", "sklearn"}}
print("heavy:", sorted({{name.partition(".")[0] for name in sys.modules}} & heavy))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "heavy: []" in result.stdout


def test_a_mistake_in_a_recipe_is_said_before_torch_is_loaded():
    code = (
        "import sys; from aumcli.cli import app\n"
        "try: app(['train', '--recipe', 'snyth'], standalone_mode=False)\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == [
        "AumError",
        "False",
    ]


def test_as_a_module_and_as_a_real_process(tmp_path):
    assert "Usage" in run("--help").stdout
    result = run("train", "--recipe", "snyth")
    assert result.returncode == 2 and "did you mean synth?" in result.stderr and result.stdout == ""


def test_cold_prediction(trained, clips):
    """Under 4 s in all on a machine that has nothing else to do, so processor time is what counts."""
    command = [sys.executable, "-m", "aumcli", "predict", clips / "low.wav", "--model", trained]
    used_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0, result.stderr
        assert "low" in result.stdout
        used_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if used_s[-1] < 4:
            return
    pytest.fail(f"aum predict takes {min(used_s):.1f} s of processor time")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(aum, name):
    result = aum(name, "--help")
    assert result.code == 0 and "Usage" in result.out and not result.err


def test_the_promised_commands():
    assert {"prepare", "train", "eval", "predict", "info"} <= set(COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("train", "--nonsense"),
        ("predict",),
        ("eval",),
        ("prepare",),
        ("predict", "a.wav", "--top", "0"),
        ("predict", "a.wav", "--format", "xml"),
        ("train", "--seed", "many"),
    ],
)
def test_mistakes_in_the_call(aum, arguments):
    result = aum(*arguments)
    assert result.code == 2 and result.err and not result.out


# the main job


def test_own_sounds_in_three_lines(aum, tmp_path, clips):
    sounds(tmp_path / "sounds", 10)
    result = aum("prepare", "folder", tmp_path / "sounds", "--out", "data/mine")
    assert result.code == 0 and "train" in result.out
    result = aum(
        "train", "--data", "data/mine", "--recipe", RECIPE, "--set", "train.epochs=1", "--out", "runs/mine", "--seed", 3
    )
    assert result.code == 0, result
    assert "epoch   1/1" in result.err and "seed 3" in result.err and "aum eval runs/mine" in result.out
    result = aum("predict", clips)
    assert result.code == 0 and "model runs/mine (the newest run)" in result.err
    assert [line.split()[0] for line in result.out.splitlines()[1:]] == [str(path) for path in sorted(clips.iterdir())]
    result = aum("eval", "runs/mine")
    assert result.code == 0 and "accuracy" in result.out
    assert {"eval-test.json", "confusion-test.png"} <= set(os.listdir("runs/mine"))


def test_without_a_recipe_quickstart_is_taken_and_the_run_named_after_the_data(aum, own_corpus, monkeypatch):
    calls = []

    def finished(recipe, out, data, **how):
        calls.append((recipe, out, data))
        write_json(out / "report.json", {"reported": {"split": "test", "clips": 6}})  # which the closing lines read

    monkeypatch.setattr("aumcli.train.train", finished)
    assert aum("train", "--data", own_corpus).code == 0
    assert aum("train", "--recipe", "synth", "--seed", 5).code == 0
    assert calls == [
        (load_recipe("quickstart"), Path("runs/data"), own_corpus),
        (load_recipe("synth", ["seed=5"]), Path("runs/synth"), None),
    ]


@pytest.mark.parametrize(
    "option, value, problem",
    [
        ("--window", -1, "window_s has to be greater than 0, not -1.0"),
        ("--hop", "nan", "hop_s has to be a finite number"),
        ("--threshold", 2, "threshold has to be less than or equal to 1, not 2.0"),
        ("--smooth", 2, "--smooth 2"),
    ],
)
def test_predict_says_which_value_is_wrong(aum, option, value, problem):
    result = aum("predict", "x.wav", option, value)
    assert_mistake(result, problem)
    assert option in result.err.partition("fix: ")[2]


def test_interrupted_training_says_how_to_go_on(aum, own_corpus, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("aumcli.train.train", interrupt)
    result = aum("train", "--data", own_corpus)
    assert (result.code, result.out) == (130, "")
    assert result.err == "stopped at once; what was saved is kept\n  go on with aum train --resume --out runs/data\n"


def test_train_resume(aum, trained, corpus):
    assert_mistake(aum("train", "--recipe", RECIPE, "--data", corpus, "--out", trained), trained, "--resume")
    assert_mistake(aum("train", "--resume", "--out", trained, "--set", "train.epochs=99"), "--set")
    assert_mistake(aum("train", "--resume", "--out", trained, "--seed", 1), "--seed")
    assert_mistake(aum("train", "--resume", "--out", "runs/none"), "no run to resume in runs/none")


def test_prepare_json(aum, tmp_path):
    sounds(tmp_path / "sounds", 4)
    result = aum("prepare", "folder", tmp_path / "sounds", "--out", "data/mine", "--json")
    report = json.loads(result.out)
    assert result.code == 0 and report["skipped"] == [] and report["corpus"] == "folder"


def test_predict_json(aum, trained, clips, tmp_path):
    (clips / "bad.wav").write_text("no sound")
    result = aum("predict", clips, "--model", trained, "--format", "json", "--top", 2)
    document = json.loads(result.out)
    assert result.code == 1
    assert {
        "schema",
        "model",
        "backend",
        "device",
        "dtype",
        "sample_rate_hz",
        "window_s",
        "hop_s",
        "smooth",
        "top",
        "threshold",
        "clips",
        "failed",
    } == set(document)
    assert (document["model"], document["device"], document["dtype"]) == (str(trained), "cpu", "float32")
    threshold = document["threshold"]  # one for each class, unless all are the same
    assert all(
        value == round(value, 6) for value in (threshold.values() if isinstance(threshold, dict) else [threshold])
    )
    assert (
        json.loads(aum("predict", clips, "--model", trained, "--format", "json", "--threshold", 0.3).out)["threshold"]
        == 0.3
    )
    assert [row["path"] for row in document["clips"]] == [str(clips / f"{name}.wav") for name in CLASSES]
    assert [row["labels"][0]["label"] for row in document["clips"]] == list(CLASSES)
    assert [row["path"] for row in document["failed"]] == [str(clips / "bad.wav")] and document["failed"][0]["fix"]
    result = aum("predict", clips, "--model", trained, "--top", 2, "--out", "deep/result.json")
    assert result.code == 1 and result.out == "" and json.loads(Path("deep/result.json").read_text()) == document


def test_predict_says_which_model(aum, trained, clips, monkeypatch):
    monkeypatch.setenv("AUM_MODEL", str(trained))
    assert "AUM_MODEL" in aum("predict", clips / "low.wav").err
    result = aum("predict", clips / "low.wav", "--model", trained / "last")
    assert f"model {trained / 'last'} (named by --model)" in result.err and result.code == 0


def test_eval_json(aum, trained, tmp_path):
    result = aum("eval", trained, "--json", "-", "--out", tmp_path / "out")
    document = json.loads(result.out)
    assert (
        result.code == 0
        and document["clips"] == 6
        and document["seed"] == 0
        and document["metrics"]["accuracy"] is not None
    )
    result = aum("eval", trained, "--json", "result.json", "--split", "val", "--out", tmp_path / "out")
    assert "accuracy" in result.out and "val" in result.out
    assert json.loads(Path("result.json").read_text())["split"] == "val"


# bad input


def bad_sounds(folder: Path) -> dict[str, str]:
    """Files that can't be used, and what must be said of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound, whatever it is called")
    cut = sound(folder / "cut.wav", 300.0)
    cut.write_bytes(cut.read_bytes()[:-1000])
    wave = np.full(4000, 0.1, dtype=np.float32)
    wave[7] = np.nan
    soundfile.write(folder / "nan.wav", wave, RATE_HZ, subtype="FLOAT")
    return {
        "empty.wav": "is empty (0 bytes)",
        "text.wav": "is not audio",
        "cut.wav": "is truncated",
        "nan.wav": "not numbers",
    }


def test_prepare_leaves_bad_files_out_and_names_them(aum, tmp_path):
    sounds(tmp_path / "sounds", 10)
    said = bad_sounds(tmp_path / "sounds" / "low" / "bad")
    soundfile.write(tmp_path / "sounds" / "low" / "short.wav", np.array([0.1, -0.1, 0.2]), RATE_HZ)
    said["short.wav"] = "is too short"
    result = aum("prepare", "folder", tmp_path / "sounds", "--out", "mine")
    assert result.code == 1
    for name, what in said.items():
        (line,) = [line for line in result.out.splitlines() if f"/{name}" in line]
        assert what in line and "fix: " in line
    manifest = read_manifest("mine")
    assert len(manifest.clips) == 30
    assert len(json.loads(Path("mine/report.json").read_text())["skipped"]) == 5
    result = aum("prepare", "folder", tmp_path / "sounds", "--out", "strict", "--strict")
    assert_mistake(result, *said, code=1)
    assert not Path("strict/manifest.csv").exists()


def test_predict_names_bad_files_and_labels_the_others(aum, trained, clips):
    said = bad_sounds(clips)
    result = aum("predict", clips, clips / "gone.wav", "--model", trained)
    assert result.code == 1
    assert [line.split()[0] for line in result.out.splitlines()[1:]] == [str(clips / f"{name}.wav") for name in CLASSES]
    for name, what in {**said, "gone.wav": "doesn't exist"}.items():
        assert f"error: {clips / name} " in result.err and what in result.err
    assert result.err.count("fix: ") == 5


def test_a_three_sample_clip_is_padded(aum, trained):
    soundfile.write("short.wav", np.array([0.1, -0.1, 0.2]), RATE_HZ)
    result = aum("predict", "short.wav", "--model", trained)
    assert result.code == 0 and "short.wav" in result.out and "error" not in result.err


def test_one_class(aum, tmp_path):
    sound(tmp_path / "sounds" / "only" / "1.wav", 300.0)
    assert_mistake(aum("prepare", "folder", tmp_path / "sounds"), "1 class folder", "only", "at least two")
    assert not Path("data").exists()


def test_a_row_whose_file_is_gone(aum, trained, own_corpus):
    manifest = read_manifest(own_corpus)
    for split in ("train", "test"):
        manifest.split(split)[0].path.unlink()
    train_row, test_row = (manifest.clips.index(manifest.split(split)[0]) + 2 for split in ("train", "test"))
    result = aum("train", "--recipe", RECIPE, "--data", own_corpus)
    assert_mistake(result, manifest.split("train")[0].path, f"row {train_row}", "aum prepare", code=1)
    assert not Path("runs").exists()
    result = aum("eval", trained, "--data", own_corpus, "--out", "out")
    assert_mistake(result, manifest.split("test")[0].path, f"row {test_row}", code=1)


@pytest.mark.parametrize(
    "setting, expected",
    [
        ("train.epoch=3", "train.epoch: unknown key, did you mean epochs?"),
        ("train.lr=fast", "train.lr: "),
        ("train.epochs=1.5", "train.epochs: "),
        ("trian.epochs=1", "did you mean train?"),
        ("epochs", "key=value"),
    ],
)
def test_mistakes_in_settings(aum, own_corpus, setting, expected):
    assert_mistake(aum("train", "--data", own_corpus, "--set", setting), expected)
    assert not Path("runs").exists()


def test_mistakes_in_a_recipe_file(aum, own_corpus):
    Path("mine.toml").write_text('extends = "quickstart"\n[train]\nepoch = 3\nlr = "fast"\n[oops]\n')
    assert_mistake(
        aum("train", "--recipe", "mine.toml", "--data", own_corpus),
        "mine.toml has 3 mistakes",
        "train.epoch",
        "train.lr",
        "oops: unknown key",
    )
    Path("mine.toml").write_text("[train\n")
    assert_mistake(aum("train", "--recipe", "mine.toml", "--data", own_corpus), "mine.toml is not valid TOML", "line 1")
    assert_mistake(aum("train", "--recipe", "fsd"), "did you mean fsdd?")
    assert_mistake(aum("train", "--recipe", "gone.toml"), "there is no recipe gone.toml")


def test_unwritable_folders(aum, trained, own_corpus, clips, tmp_path):
    Path("file").write_text("no folder")
    for arguments in (
        ("train", "--recipe", RECIPE, "--data", own_corpus, "--out", "file/out"),
        ("prepare", "folder", tmp_path / "sounds", "--out", "file/out"),
        ("predict", clips, "--model", trained, "--out", "file/out.json"),
        ("eval", trained, "--out", "file/out"),
        ("eval", trained, "--json", "file/out.json"),
    ):
        assert_mistake(aum(*arguments), "can't write", "file/out", "--out")
    assert Path("file").read_text() == "no folder"
    assert_mistake(
        aum("train", "--recipe", RECIPE, "--data", own_corpus, "--out", "file"), "can't write file/recipe.toml"
    )


def test_an_out_that_is_no_folder(aum, trained, own_corpus, tmp_path):
    for arguments in (
        ("train", "--recipe", RECIPE, "--data", own_corpus),
        ("prepare", "folder", tmp_path / "sounds"),
        ("eval", trained),
        ("ablate", "--recipe", RECIPE, "--data", own_corpus),
        ("bench",),
    ):
        assert_mistake(aum(*arguments, "--out", "-"), "a folder is written, and - is standard output")
        assert_mistake(aum(*arguments, "--out", "results.json"), "results.json is named like a file")
    assert not [*Path().iterdir()]


@needs_full
def test_a_full_disk(aum, trained, own_corpus, clips, tmp_path):
    Path("out.json").write_text("old")
    for arguments in (
        ("predict", clips, "--model", trained, "--out", "out.json"),
        ("eval", trained, "--json", "out.json", "--out", "eval"),
    ):
        fill_disk(Path("out.json"))
        assert_mistake(aum(*arguments), "no space left", "out.json", code=1)
        assert Path("out.json").read_text() == "old"
    before = (own_corpus / "manifest.csv").read_bytes()
    fill_disk(own_corpus / "manifest.csv")
    result = aum("prepare", "folder", tmp_path / "sounds", "--out", own_corpus, "--seed", 5)
    assert_mistake(result, "no space left", "manifest.csv", code=1)
    assert (own_corpus / "manifest.csv").read_bytes() == before
    fill_disk(Path("runs/full/last/model.safetensors"))
    result = aum("train", "--recipe", RECIPE, "--data", own_corpus, "--out", "runs/full", "--set", "train.epochs=1")
    assert_mistake(result, "no space left", "model.safetensors", "--resume", code=1)
    assert not list(Path("runs").rglob("*.part"))


def test_missing_data_models_and_splits(aum, trained, clips):
    assert_mistake(aum("train", "--recipe", "synth"), "data/synth", "aum prepare")
    assert_mistake(aum("train"), "names no corpus", "--data")
    assert_mistake(aum("eval", "runs/none"), "there is no model runs/none")
    assert_mistake(aum("eval", trained, "--split", "dev"), "no split 'dev'", "train")
    assert_mistake(aum("eval", trained, "--data", "nowhere"), "nowhere")
    assert_mistake(aum("predict", clips, "--model", "runs/none"), "there is no model runs/none")
    Path("void").mkdir()
    assert_mistake(aum("predict", "void", "--model", trained), "void holds no sound files")
    assert_mistake(aum("prepare", "nonsense"), "nonsense")
    assert_mistake(aum("prepare", "folder", "nowhere"), "nowhere", "doesn't exist")
    assert_mistake(aum("prepare", "folder", "a", "--source", "b"), "--source")


def test_no_model_at_all(aum, clips, monkeypatch, tmp_path):
    monkeypatch.setattr("aumcli.checkpoints.lookup._packaged", lambda: tmp_path / "none")
    assert_mistake(aum("predict", clips), "there is no model to use", "aum train")


def test_a_damaged_model(aum, trained, clips):
    model = Path(shutil.copytree(trained / "best", "model"))
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])
    assert_mistake(aum("predict", clips, "--model", "model"), "model/model.safetensors", code=1)
    (model / "config.json").write_text("{")
    assert_mistake(aum("predict", clips, "--model", "model"), "model/config.json is damaged")
    assert_mistake(aum("info", "model"), "model/config.json is damaged")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", ""])
def test_devices_that_are_not_there(aum, trained, clips, own_corpus, device):
    for arguments in (
        ("predict", clips, "--model", trained),
        ("eval", trained),
        ("train", "--recipe", RECIPE, "--data", own_corpus),
    ):
        assert_mistake(aum(*arguments, "--device", device), f"can't use device {device}", "--device cpu")
    assert not Path("runs").exists()


# aum info


def test_info(aum):
    result = aum("info")
    assert result.code == 0
    for expected in (
        "aumcli",
        "torch",
        "GPU",
        "backend reference",
        "backend torch",
        "backend cpu",
        "backend triton",
        "backend auto",
        "packaged models",
        "default model",
    ):
        assert expected in result.out, expected


def test_info_says_why_a_backend_cannot_run(aum, monkeypatch):
    from aumcli.core.kernels import cpu

    monkeypatch.setattr(cpu, "library", None)
    monkeypatch.setattr(cpu, "why_not", lambda: "it was not compiled: install a C compiler and run pip install again")
    result = aum("info")
    assert result.code == 0 and "install a C compiler" in result.out


def test_info_keeps_a_command_in_one_line_in_a_terminal_too(aum, monkeypatch):
    import torch

    from aumcli.core.kernels import mamba_ssm

    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the output for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(mamba_ssm, "why_not", lambda: f"not installed: {mamba_ssm.INSTALL} 'aumcli[cuda]'")
    result = aum("info")
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation 'aumcli[cuda]'" in result.out


def test_info_recipes(aum):
    result = aum("info", "recipes")
    assert result.code == 0 and all(name in result.out for name in recipe_names())


def test_info_of_a_recipe_is_a_recipe(aum):
    result = aum("info", "synth")
    Path("mine.toml").write_text(result.out)
    assert result.code == 0 and load_recipe("mine.toml") == load_recipe("synth")
    assert aum("info", "mine.toml").out == result.out


def test_info_of_a_recipe_names_the_packaged_model_that_is_called_so_too(aum):
    result = aum("info", "digits")
    Path("mine.toml").write_text(result.out)
    assert load_recipe("mine.toml") == load_recipe("digits")
    for expected in ("packaged model", "487,098 parameters", "8000 Hz", "10 labels: zero, one", "nine"):
        assert expected in result.out, expected
    document = json.loads(aum("info", "digits", "--json").out)
    model = document["packaged_model"]
    assert (model["parameters"], model["sample_rate_hz"], model["labels"][-1]) == (487_098, 8000, "nine") and document[
        "train"
    ]
    assert json.loads(aum("info", model["folder"], "--json").out)["labels"] == model["labels"]
    assert "packaged" not in aum("info", "synth").out


def test_info_of_something_else(aum):
    assert_mistake(aum("info", "nonsense"), "nonsense is neither a recipe nor a model", "aum info recipes")
    assert_mistake(aum("info", "quikstart"), "neither", "did you mean quickstart?")
    assert_mistake(aum("info", "gone.toml"), "there is no recipe gone.toml")


def test_info_recipes_fits_80_columns_and_says_which_row_of_the_paper_each_is(aum):
    lines = aum("info", "recipes").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("vggsound: 20 epochs") for line in lines)
    assert any(line.split()[0] == "vggsound-ast" and "Table 1: AST-B/16" in line for line in lines if line)


def test_info_as_json(aum, trained):
    groups = json.loads(aum("info", "recipes", "--json").out)
    assert [row["name"] for row in groups["as20k"]][:2] == ["as20k", "as20k-ast"]
    assert "ViM-S" in next(row for row in groups["as20k"] if row["name"] == "as20k-small-imagenet")["needs"]
    assert json.loads(aum("info", "vggsound-ast", "--json").out)["model"]["architecture"] == "ast"
    assert json.loads(aum("info", trained, "--json").out)["labels"] == list(CLASSES)
    assert "backend auto" in json.loads(aum("info", "--json").out)


@pytest.mark.parametrize("command", ["prepare", "train", "eval", "predict", "bench", "ablate", "convert", "info"])
def test_no_word_of_a_help_text_is_lost(command, aum, monkeypatch):
    """Rich takes what stands in square brackets for markup."""
    import typer

    from aumcli.cli import app

    monkeypatch.setenv("COLUMNS", "200")
    shown = "".join(aum(command, "--help").out.replace("│", " ").split())
    for parameter in typer.main.get_command(app).commands[command].params:
        assert "".join((getattr(parameter, "help", "") or "").split()) in shown, parameter.name


def test_version(aum):
    assert aum("--version").out.startswith("aumcli 0.")
