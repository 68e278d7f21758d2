"""The packaged model: small, documented, and as good on real recordings as its card says."""

from pathlib import Path

import pytest

from aumcli.checkpoints.lookup import find_model
from aumcli.classifier import load_model
from aumcli.evaluate import evaluate
from aumcli.prepare import prepare


def test_digits_is_small_and_documented():
    folder = find_model("digits")
    assert (folder / "model.safetensors").stat().st_size <= 4 * 2**20
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Free Spoken Digit Dataset" in card and "@" not in card
    assert load_model("digits").labels == [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
    ]


def test_digits_scores_what_its_card_says(shared, tmp_path):
    archive = shared / "data" / "fsdd.tar.gz"
    if not archive.exists():
        pytest.skip("AUM_SHARED has no data/fsdd.tar.gz")
    prepare("fsdd", tmp_path / "fsdd", source=archive)
    accuracy = evaluate("digits", tmp_path / "fsdd").metrics.accuracy
    card = (Path(find_model("digits")) / "README.md").read_text(encoding="utf-8")
    assert f"{100 * accuracy:.2f} %" in card
    assert accuracy >= 0.95
