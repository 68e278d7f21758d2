"""Recipes: what a TOML file and --set may say, and what a person reads who says something else."""

import tomllib
import typing

import pytest
import tomli_w

from aumcli.errors import AumError
from aumcli.recipe import Recipe, dump_recipe, load_recipe, recipe_names


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problem(name, overrides=None) -> str:
    with pytest.raises(AumError) as caught:
        load_recipe(name, overrides)
    assert caught.value.exit_code == 2 and caught.value.fix
    return str(caught.value)


def test_the_promised_recipes_are_there():
    assert {"quickstart", "synth", "fsdd", "fsdd-unseen-speaker"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe(name, write):
    recipe = load_recipe(name)
    assert load_recipe(write("again.toml", dump_recipe(recipe))) == recipe
    assert (recipe.model.n_mels, recipe.model.frames) == (recipe.frontend.n_mels, recipe.frontend.frames)


def test_a_dump_says_everything(write):
    recipe = load_recipe("synth", ["augment.noise=3", "model.direction=Bi-Bi", "data.test_group=x"])
    values = tomllib.loads(dump_recipe(recipe))
    assert set(values["train"]) == set(type(recipe.train).model_fields)
    assert load_recipe(write("again.toml", tomli_w.dumps(values))) == recipe
    recipe = Recipe()
    assert load_recipe(write("defaults.toml", dump_recipe(recipe))) == recipe


def test_a_file_states_differences_only(write):
    path = write("mine.toml", "[train]\nepochs = 3\n")
    assert load_recipe(path) == Recipe.model_validate({"train": {"epochs": 3}})
    assert load_recipe(write("empty.toml", "")) == Recipe()


def test_extends_merges_section_by_section(write):
    base = load_recipe("quickstart")
    recipe = load_recipe(write("mine.toml", 'extends = "quickstart"\n[train]\nepochs = 3\n[data]\ninfer = []\n'))
    assert recipe.train.epochs == 3 and recipe.data.infer == ()
    assert recipe.train.lr == base.train.lr and recipe.augment == base.augment


@pytest.mark.parametrize(
    "settings, measured",
    [
        ([], ("sample_rate", "low_hz", "high_hz", "window", "clip_length", "normalisation")),
        (["frontend.sample_rate_hz=250000", "frontend.frames=60"], ("low_hz", "high_hz", "window", "normalisation")),
        (
            ["frontend.frames=1024"],
            ("sample_rate", "low_hz", "high_hz", "window", "normalisation"),
        ),  # a choice, though the default
        (["frontend.mean=-4.0", "frontend.std=3"], ("sample_rate", "low_hz", "high_hz", "window", "clip_length")),
        (["frontend.hop_ms=5"], ("sample_rate", "low_hz", "high_hz", "clip_length", "normalisation")),
        (["frontend.high_hz=5000"], ("sample_rate", "low_hz", "window", "clip_length", "normalisation")),
        (['data.infer=["sample_rate"]', "frontend.frames=64"], ("sample_rate",)),
    ],
)
def test_what_is_set_is_not_measured(write, settings, measured):
    recipe = load_recipe("quickstart", settings)
    assert recipe.data.infer == measured
    assert load_recipe(write("dump.toml", dump_recipe(recipe))) == recipe
    lines = {"frontend": [], "data": []}
    for text in settings:
        section, _, line = text.partition(".")
        lines[section].append(line)
    text = 'extends = "quickstart"\n' + "".join(f"[{name}]\n" + "\n".join(each) + "\n" for name, each in lines.items())
    assert load_recipe(write("mine.toml", text)) == recipe  # a file of one's own, and one that extends it
    assert load_recipe(write("next.toml", 'extends = "mine.toml"\n')).data.infer == measured


def test_who_changes_a_dump_has_chosen_and_who_asks_for_measuring_gets_it(write):
    dump = dump_recipe(load_recipe("quickstart"))
    recipe = load_recipe(write("mine.toml", dump.replace("sample_rate_hz = 16000", "sample_rate_hz = 250000")))
    assert recipe.data.infer == ("low_hz", "high_hz", "window", "clip_length", "normalisation")
    assert recipe.frontend.sample_rate_hz == 250000
    again = load_recipe("fsdd", ['data.infer=["sample_rate", "clip_length"]'])  # fsdd says both values
    assert again.data.infer == ("sample_rate", "clip_length")
    assert load_recipe(write("dump.toml", dump_recipe(again))) == again


@pytest.mark.parametrize("key, other", [("mean=-4.0", "std"), ("std=3.0", "mean")])
def test_mean_and_deviation_belong_together(key, other):
    text = problem("quickstart", [f"frontend.{key}"])
    assert f"frontend.{other} is to be measured" in text and f"--set frontend.{other}=" in text
    assert load_recipe("vggsound", [f"frontend.{key}"]).data.infer == ()


def test_extends_a_file_beside_it(write, monkeypatch, tmp_path):
    write("deep/base.toml", "[train]\nepochs = 7\nbatch_size = 5\n")
    write("deep/middle.toml", 'extends = "base.toml"\n[train]\nepochs = 8\n')
    path = write("top.toml", 'extends = "deep/middle.toml"\nseed = 4\n')
    recipe = load_recipe(path)
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.seed) == (8, 5, 4)
    monkeypatch.chdir(tmp_path)
    assert load_recipe("top.toml") == recipe


@pytest.mark.parametrize(
    "files",
    [
        {"a.toml": "a.toml"},
        {"a.toml": "b.toml", "b.toml": "a.toml"},
        {"a.toml": "./b.toml", "b.toml": "./a.toml"},
        {"a.toml": "sub/b.toml", "sub/b.toml": "../a.toml"},
    ],
)
def test_circles_are_refused(write, files):
    for name, base in files.items():
        path = write(name, f'extends = "{base}"\n')
    assert "extends itself" in problem(path)


@pytest.mark.parametrize(
    "override, section, key, value",
    [
        ("train.epochs=5", "train", "epochs", 5),
        ("train.lr=1e-4", "train", "lr", 1e-4),
        ("train.lr=1", "train", "lr", 1.0),
        ("train.betas=[0.9, 0.95]", "train", "betas", (0.9, 0.95)),
        ("train.optimizer=adam", "train", "optimizer", "adam"),
        ('train.optimizer="adam"', "train", "optimizer", "adam"),
        ("model.direction=Fo-Fo", "model", "direction", "Fo-Fo"),
        ("model.published_gate_gradient=true", "model", "published_gate_gradient", True),
        ("data.infer=[]", "data", "infer", ()),
        ("data.test_group=", "data", "test_group", ""),
        ("data.test_group=Ann Smith", "data", "test_group", "Ann Smith"),
        (" train.epochs = 5", "train", "epochs", 5),
    ],
)
def test_set_has_the_types_of_toml(override, section, key, value):
    assert getattr(getattr(load_recipe("synth", [override]), section), key) == value


def test_set_wins_over_the_file_and_the_last_one_over_the_first():
    recipe = load_recipe("synth", ["train.epochs=5", "train.epochs=6", "seed=3"])
    assert (recipe.train.epochs, recipe.seed) == (6, 3)


@pytest.mark.parametrize("override", ["train.epochs", "=3", "", "  =x"])
def test_set_without_key_or_value(override):
    assert "--set train.epochs=5" in problem("synth", [override])


def test_all_mistakes_are_told_at_once(write):
    path = write(
        "mine.toml",
        'seed = -1\nspeed = 3\n[train]\nepoch = 3\nlr = "fast"\noptimizer = "sgd"\n'
        "[frontend]\nframes = 1.5\n[model]\nwidth = 0\n",
    )
    text = problem(path, ["augment.mixup=2"])
    assert "mine.toml has 8 mistakes" in text
    for expected in (
        "seed: ",
        "speed: unknown key",
        "train.epoch: unknown key, did you mean epochs?",
        "train.lr: ",
        "'fast'",
        "train.optimizer: ",
        "'adam' or 'adamw'",
        "frontend.frames: ",
        "model.width: ",
        "augment.mixup: ",
    ):
        assert expected in text, expected
    assert "model.frames" not in text  # the frontend's mistake is told once


@pytest.mark.parametrize(
    "override, expected",
    [
        ("trian.epochs=3", "trian: unknown key, did you mean train?"),
        ("train.lrr=3", "did you mean lr?"),
        ("train.zzz=3", "train.zzz: unknown key; known: epochs, max_steps, batch_size"),
        ("train=3", "train: "),
        ("train.epochs=abc", "train.epochs: "),
        ("train.epochs=2.5", "train.epochs: "),
        ("train.epochs=[1]", "train.epochs: "),
        ("train.epochs.deep=1", "train.epochs: "),
        ("train.lr=nan", "train.lr: "),
        ("train.lr=-1", "train.lr: "),
        ("train.lr=inf", "train.lr: "),
        ('data.infer=["rate"]', "data.infer"),
        ("model.size=huge", "'nano', 'tiny'"),
        ("model.direction=Fo", "'Fo-Fo', 'Fo-Bi' or 'Bi-Bi'"),
        ("frontend.low_hz=9000", "low_hz 9000"),
        ("frontend.high_hz=9000", "high_hz 9000"),
        ("frontend.high_hz=20", "not above low_hz"),
        ("train.betas=[0.9]", "train.betas"),
    ],
)
def test_one_mistake(override, expected):
    text = problem("quickstart", [override])
    assert "1 mistake:" in text and expected in text


def test_patches_must_fill_the_spectrogram():
    assert "frames 99 is not a multiple" in problem("vggsound", ["frontend.frames=99"])


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=true",
        'train.epochs="7"',
        'train.lr="0.1"',
        "augment.mixup=true",
        "model.published_gate_gradient=1",
    ],
)
def test_a_wrong_type_is_not_bent_into_the_right_one(override):
    assert override.split("=")[0] in problem("quickstart", [override])


@pytest.mark.parametrize("key", ["n_mels", "frames"])
def test_the_models_size_follows_the_frontend_and_cannot_differ(key):
    recipe = load_recipe("synth", [f"frontend.{key}=128"])
    assert getattr(recipe.model, key) == 128
    text = problem("synth", [f"model.{key}=256"])
    assert f"model.{key} 256 differs from frontend.{key}" in text


def test_with_values_checks_again():
    recipe = load_recipe("synth").with_values(frontend={"frames": 200}, train={"epochs": 1})
    assert (recipe.model.frames, recipe.train.epochs) == (200, 1)
    with pytest.raises(AumError, match="frontend.frames"):
        recipe.with_values(frontend={"frames": 0})


def test_recipes_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        load_recipe("synth").train.epochs = 3


@pytest.mark.parametrize(
    "name, expected",
    [
        ("fsd", "did you mean fsdd?"),
        ("quikstart", "did you mean quickstart?"),
        ("nothing-like-it", "fix: `aum info recipes` lists them"),
        ("no/such.toml", "no/such.toml"),
        ("no/fsd.toml", "did you mean fsdd?"),
        ("vggsond-modrn", "did you mean vggsound-modern, vggsound"),
    ],
)
def test_unknown_recipe(name, expected):
    text = problem(name)
    assert f"there is no recipe {name}" in text and expected in text and "aum info recipes" in text and len(text) < 300


def test_unknown_base(write):
    assert "did you mean synth?" in problem(write("mine.toml", 'extends = "snyth"\n'))


@pytest.mark.parametrize("text", ["[train\n", "epochs = \n", "a = 1\na = 2\n", "just words\n"])
def test_bad_toml_names_file_and_line(write, text):
    said = problem(write("mine.toml", text))
    assert "mine.toml is not valid TOML" in said and "line" in said


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00\x01")
    assert "mine.toml is not valid TOML" in problem(tmp_path / "mine.toml")


@pytest.mark.parametrize("encoding, words", [("utf-16", "it is not in UTF-8"), ("latin-1", "it is not in UTF-8")])
def test_a_file_in_another_encoding(tmp_path, encoding, words):
    (tmp_path / "mine.toml").write_text('paper = "é"\n', encoding=encoding)
    text = problem(tmp_path / "mine.toml")
    assert words in text and "save it as UTF-8" in text


def test_a_mark_of_windows_before_a_recipe(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "quickstart"\n[train]\nepochs = 3\n', encoding="utf-8-sig")
    assert load_recipe(tmp_path / "mine.toml").train.epochs == 3


def test_a_recipe_with_a_path_of_any_bytes_can_be_written_and_read(tmp_path):
    recipe = load_recipe("quickstart").model_copy(update={"paper": "caf\udce9"})
    text = dump_recipe(recipe)
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "mine.toml").paper == "caf\\xe9"


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "mine.toml").mkdir()
    assert "there is no recipe" in problem(tmp_path / "mine.toml")


OPTIONAL = [
    f"{section}.{name}"
    for section, field in Recipe.model_fields.items()
    if hasattr(field.annotation, "model_fields")
    for name, each in field.annotation.model_fields.items()
    if type(None) in typing.get_args(each.annotation)
]


@pytest.mark.parametrize("text", ["none", "None", ""])
@pytest.mark.parametrize("key", [*OPTIONAL, "model.mlp_width"])
def test_optional_values_take_none(key, text):
    section, name = key.split(".")
    more = ["model.architecture=ast"] if name == "mlp_width" else []
    assert getattr(getattr(load_recipe("fsdd", [*more, f"{key}={text}"]), section), name) is None


def test_values_that_are_needed_take_no_none():
    assert OPTIONAL
    for key in ("train.epochs=none", "augment.noise=none", "train.lr="):
        with pytest.raises(AumError, match=key.partition("=")[0]):
            load_recipe("fsdd", [key])


def test_zero_switches_each_augmentation_off():
    recipe = load_recipe("quickstart", ["augment.policy=none"])
    values = {
        name: 0 for name, field in type(recipe.augment).model_fields.items() if isinstance(field.default, (int, float))
    }
    assert recipe.with_values(augment=values).augment == type(recipe.augment)()
    assert len(values) >= 15


def test_epochs_that_are_asked_for_have_no_limit_from_below(write):
    assert load_recipe("quickstart").train.max_steps > 0
    assert load_recipe("quickstart", ["train.epochs=80"]).train.max_steps == 0
    assert load_recipe("quickstart", ["train.epochs=80", "train.max_steps=9"]).train.max_steps == 9
    dumped = write("again.toml", dump_recipe(load_recipe("quickstart")))
    assert load_recipe(dumped).train == load_recipe("quickstart").train


def test_few_epochs_are_not_all_warm_up():
    train = load_recipe("quickstart").with_epochs(2).train
    assert train.epochs == 2 and train.warmup_epochs == 0.5
