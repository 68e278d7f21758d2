"""Every row of the paper's tables is a recipe, with the values of its Table 5 and the published parameter counts."""

import re

import pytest
import torch

from aumcli import paper
from aumcli.ablate.grid import TABLE_2, parse_axes
from aumcli.config import FrontendConfig
from aumcli.core import build_network
from aumcli.data.sources import names
from aumcli.recipe import load_recipe, recipe_families, recipe_names

CORPORA = {"audioset": 527, "as20k": 527, "vggsound": 309, "voxceleb1": 1251, "speechcommands": 35, "epic_sounds": 44}
ROWS = {
    "Table 1: AuM-B/16": "",
    "Table 1: AST-B/16": "-ast",
    "Table 3: AuM-S (c)": "-small-imagenet",
    "Table 3: AST-S": "-ast-small-imagenet",
    "Table 4: AuM-B/16": "-from-audioset",
    "Table 4: AST-B/16": "-ast-from-audioset",
}
NOT_IN_TABLE_4 = ("audioset", "as20k")
FAMILIES = {base: variants for base, variants in recipe_families().items() if load_recipe(base).paper}
NAMES = [name for base, variants in FAMILIES.items() for name in (base, *variants)]

# Table 5: batch, loss, epochs, rate, start/step/decay, frequency and time mask, mixup, mean, std; * where the authors'
# scripts differ
TABLE_5 = {
    "audioset": (12, "bce", 5, 1e-5, (2, 1, 0.5), 48, 192, 0.5, -4.268, 4.569),
    "as20k": (12, "bce", 25, 5e-5, (10, 5, 0.5), 48, 192, 0.5, -4.268, 4.569),
    "vggsound": (12, "bce", 20, 1e-5, (5, 2, 0.75), 48, 192, 0.0, -5.077, 4.453),  # * sign of the mean
    "voxceleb1": (12, "cross_entropy", 20, 1e-5, (5, 2, 0.75), 48, 192, 0.0, -3.761, 4.201),  # * 128 x 1024
    "speechcommands": (128, "bce", 30, 2.5e-4, (5, 1, 0.85), 48, 48, 0.6, -6.846, 5.565),  # * batch, loss, no warm-up
    "epic_sounds": (12, "cross_entropy", 30, 1e-5, None, 48, 192, 0.0, 0.0, 0.5),
}  # * rate, constant, no mixup


def test_the_six_corpora():
    assert set(FAMILIES) == set(CORPORA) <= set(names())  # one word for prepare and recipe


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_tables_1_3_and_4_is_a_recipe(row, corpus):
    if "Table 4" in row and corpus in NOT_IN_TABLE_4:
        assert f"{corpus}{ROWS[row]}" not in NAMES
        return
    recipe = load_recipe(f"{corpus}{ROWS[row]}")
    assert recipe.paper.replace("Tables 1 and 2", "Table 1") == row and recipe.data.corpus == corpus
    assert recipe.model.architecture == ("ast" if "AST" in row else "aum")
    assert recipe.model.size == ("small" if "Table 3" in row else "base")
    if "AuM" in row:
        assert (recipe.model.direction, recipe.model.cls_position) == ("Bi-Bi" if "(c)" in row else "Fo-Bi", "mid")
    source = {"1": "", "3": "DeiT-S" if "AST" in row else "ViM-S", "4": "AST-B" if "AST" in row else "AuM-B"}[row[6]]
    assert recipe.train.pretrained.startswith(source) and bool(recipe.train.pretrained) == bool(source)


@pytest.mark.parametrize("corpus", ["as20k", "vggsound"])
def test_table_2_is_the_grid_of_ablate(corpus):
    assert "Tables 1 and 2" in load_recipe(corpus).paper
    directions, positions = parse_axes(TABLE_2)
    cells = {
        (load_recipe(corpus, [a, b]).model.direction, load_recipe(corpus, [a, b]).model.cls_position)
        for a in directions
        for b in positions
    }
    assert len(cells) == 9


@pytest.mark.parametrize("corpus", TABLE_5)
def test_table_5(corpus):
    batch, loss, epochs, rate, decay, freq_mask, time_mask, mixup, mean, std = TABLE_5[corpus]
    recipe = load_recipe(corpus)
    train, front = recipe.train, recipe.frontend
    assert (train.batch_size, train.loss, train.epochs, train.lr) == (batch, loss, epochs, rate)
    assert (train.optimizer, train.weight_decay, train.betas) == ("adam", 5e-7, (0.95, 0.999))
    assert (
        (train.decay_start, train.decay_every, train.decay_factor) == decay if decay else train.schedule == "constant"
    )
    assert train.schedule == ("steps" if decay else "constant")
    assert (recipe.augment.freq_mask, recipe.augment.time_mask, recipe.augment.mixup) == (freq_mask, time_mask, mixup)
    assert (front.mean, front.std) == (pytest.approx(mean, abs=1e-3), pytest.approx(std, abs=1e-3))
    assert (front.n_mels, front.frames) == (128, 128 if corpus == "speechcommands" else 1024)
    assert (recipe.model.patch_mels, recipe.model.patch_frames, recipe.model.overlap) == (16, 16, 0)
    assert (train.ema, train.label_smoothing, train.clip_grad, recipe.model.drop_path) == (0, 0, 0, 0)
    assert recipe.data.sampling == ("balanced" if corpus == "audioset" else "shuffle")
    assert recipe.model.n_classes == CORPORA[corpus]
    warmup = {"speechcommands": (0, 0), "epic_sounds": (0, 2)}.get(corpus)
    assert (train.warmup_steps, train.warmup_epochs) == warmup if warmup else train.warmup_steps == 1000
    noisy = corpus == "speechcommands"
    assert (recipe.augment.feature_noise, recipe.augment.roll) == ((0.1, 10) if noisy else (0, 0))


def test_epic_sounds_has_its_own_frontend():
    recipe = load_recipe("epic_sounds")
    assert recipe.frontend == FrontendConfig(
        kind="epic_sounds",
        sample_rate_hz=24000,
        window_ms=10.0,
        hop_ms=5.0,
        fft_size=2048,
        low_hz=0.0,
        mean=0.0,
        std=0.5,
    )
    assert recipe.augment.masking == "epic_sounds"


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts(name):
    """AuM-B 92.1 M and AuM-S (Bi-Bi) 25.5 M with AudioSet's 527 classes.

    DeiT's 86.6 and 22.1 M less its head, with ours.
    """
    recipe = load_recipe(name)
    with torch.device("meta"):
        network = build_network(recipe.model)
    width = recipe.model.width
    for_audioset = sum(x.numel() for x in network.parameters()) + (527 - recipe.model.n_classes) * (width + 1)
    positions = (1 + 512 - 1 - recipe.model.n_patches) * width  # Speech Commands has fewer
    published = {("aum", "base"): 92.1, ("aum", "small"): 25.5, ("ast", "base"): 86.6, ("ast", "small"): 22.1}
    deit_positions = 0.0 if recipe.model.architecture == "aum" else _ast_difference(width)
    found = (for_audioset + positions - deit_positions) / 1e6
    assert found == pytest.approx(published[recipe.model.architecture, recipe.model.size], abs=0.06)


def _ast_difference(width: int) -> int:
    """What AST-527 has and DeiT-1000 of the same size doesn't.

    Positions, one picture channel less patches, norm and head.
    """
    return (513 - 197) * width - 2 * 256 * width + 2 * width + (527 - 1000) * (width + 1)


@pytest.mark.parametrize("corpus", CORPORA)
def test_modern(corpus):
    published, modern = load_recipe(corpus), load_recipe(f"{corpus}-modern")
    train = modern.train
    assert (train.dtype, train.optimizer, train.schedule) == ("bfloat16", "adamw", "cosine") and train.ema > 0.99
    for key in ("epochs", "batch_size", "lr", "loss", "warmup_steps", "warmup_epochs"):
        assert getattr(train, key) == getattr(published.train, key)
    for section in ("data", "frontend", "model", "augment"):
        assert getattr(modern, section) == getattr(published, section)


def test_audioset_is_the_unbalanced_segments():
    """As in the authors' scripts, whose list is unbalanced.json: 2,041,789 rows; the balanced ones are 22,160 more."""
    assert load_recipe("audioset").data.train_clips == 2_041_789 and load_recipe("as20k").data.train_clips == 22_160


def test_a_corpus_without_a_validation_split_keeps_a_share_back():
    """The split that a table reports never chooses the epoch."""
    shares = {corpus: load_recipe(corpus).data.val_fraction for corpus in CORPORA}
    assert {corpus for corpus, share in shares.items() if share} == {"audioset", "as20k", "vggsound", "epic_sounds"}
    assert all(load_recipe(name).data.val == "val" for name in NAMES)


def test_what_is_reported_never_chooses():
    """EPIC-SOUNDS has no test labels: its validation split is reported, and a share of train chooses the epoch."""
    reported = {corpus: load_recipe(corpus).data.reported for corpus in CORPORA}
    assert {corpus: split for corpus, split in reported.items() if split != "test"} == {"epic_sounds": "val"}
    assert not any(load_recipe(name).data.leak for name in recipe_names())


@pytest.mark.parametrize("number", paper.TABLES)
def test_tables_are_made_of_the_recipes_of_their_rows(number):
    for row in paper.TABLES[number]:
        assert ROWS[f"Table {number}: {row.name}"] == row.variant
        assert all(f"{corpus}{row.variant}" in NAMES for corpus in row.figures)
    assert set(paper.corpora_of(number)) == set(CORPORA) - set(NOT_IN_TABLE_4 if number == 4 else ())


def tables_of_the_paper(text: str) -> dict[int, list[list[tuple[float, ...]]]]:
    """The figures of each row of Tables 1 to 4 of paper.txt: (mean, standard deviation) by column."""
    found, rows = {}, []
    for line in text.splitlines():
        cells = re.findall(r"(\d+\.\d+)(?:</b>)? (?:\$\\pm\$|\$\\pm) ?(\d+\.\d+)", line)
        if cells and "\t" in line:
            rows.append([tuple(map(float, cell)) for cell in cells])
        if title := re.match(r"Table ([1-4])\.", line):
            found[int(title[1])], rows = rows, []
    return found


def test_the_published_figures_are_the_papers(shared):
    theirs = tables_of_the_paper((shared / "paper.txt").read_text(encoding="utf-8"))
    assert sorted(theirs) == [1, 2, 3, 4]
    for number, rows in paper.TABLES.items():
        assert [list(row.figures.values()) for row in rows] == theirs[number]
    grids = [[*paper.TABLE_2["as20k"][row], *paper.TABLE_2["vggsound"][row]] for row in paper.rows_of(2)]
    assert grids == theirs[2]


def table_5_of_the_paper(text: str) -> dict[str, tuple[str, ...]]:
    """The rows of Table 5 of paper.txt; an empty cell is a part of the one before it."""
    found = {}
    for line in text[text.index("Setting\tAudioset") : text.index("Table 5. ")].splitlines():
        name, *cells = line.split("\t")
        for place, cell in enumerate(cells):
            cells[place] = cell or cells[place - 1]
        found[name] = tuple(cells)
    return found


def test_table_5_is_the_papers(shared):
    theirs = table_5_of_the_paper((shared / "paper.txt").read_text(encoding="utf-8"))
    names = {
        "batch size": "Batch Size",
        "loss": "Loss Function",
        "balanced sampling": "Balanced Sampling",
        "warm-up": "Warm-up Duration",
        "spectrogram": "Spectrogram Size",
        "SpecAug": "SpecAug (time / freq.)",
        "mixup": "Mixup",
        "epochs": "Epochs",
        "mean": "Dataset Mean for Norm.",
        "std": "Dataset Std. for Norm.",
        "rate": "Base LR",
    }
    for ours, name in names.items():
        whole = 5 if ours in ("mean", "std") else 6  # the last cell there is empty, for Epic-Sounds is not normalised
        assert paper.TABLE_5[ours][:whole] == theirs[name][:whole], name
    assert paper.TABLE_5["decay"][:5] == theirs["LR Sched. Params"][:5]
    assert paper.TABLE_5["decay"][5] == theirs["LR Sched. Type"][5]


def test_what_figure_2_says_stands_in_the_paper(shared):
    text = (shared / "paper.txt").read_text(encoding="utf-8")
    for words in (
        "20 seconds of audio (1024 tokens) for training consumes as little GPU memory as the AST-Small model",
        "AuM-B can be trained with 80 seconds, AST-B will run out of memory in the setting that uses only 20 seconds",
        "AuM is 1.6 times faster in the inference stage than AST at 4096 number of tokens",
    ):
        assert words in text
    said = " ".join(paper.FIGURE_2)
    assert all(number in said for number in ("1024 tokens (20 s)", "80 s", "1.6 times", "4096 tokens"))
