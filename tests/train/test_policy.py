"""augment.policy: what a policy sets, and the choice of one by short runs."""

import re

import pytest
from tiny import tiny
from training import problem, quietly

from aumcli.config import POLICIES, AugmentConfig
from aumcli.recipe import Recipe, dump_recipe, load_recipe
from aumcli.train import policy as module
from aumcli.train.policy import short_epochs

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def automatic(*overrides: str) -> Recipe:
    """tiny.toml with the choice left to short runs, of an epoch each."""
    return tiny("augment.policy=auto", "train.epochs=3", *overrides)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_sets_what_is_not_given(name):
    augment = AugmentConfig(policy=name, shift_s=0.7, noise=0.0)
    assert augment.shift_s == 0.7 and augment.noise == 0.0
    for key, value in POLICIES[name].items():
        assert key in ("shift_s", "noise") or getattr(augment, key) == value


def test_what_was_set_outlives_the_choice():
    augment = (
        tiny("augment.policy=auto", "augment.noise=0.0", "augment.gain_db=3.0")
        .with_values(augment={"policy": "speech"})
        .augment
    )
    assert augment.policy == "speech" and augment.noise == 0.0 and augment.gain_db == 3.0
    assert augment.freq_warp == POLICIES["speech"]["freq_warp"]


def test_other_values_leave_the_choice_open():
    recipe = tiny("augment.policy=auto").with_values(train={"epochs": 9})
    assert recipe.with_values(augment={"policy": "speech"}).augment.freq_warp == POLICIES["speech"]["freq_warp"]


def test_a_recipe_with_a_policy_is_read_as_it_was_written(tmp_path):
    recipe = tiny("augment.policy=field", "augment.noise=0.0")
    (tmp_path / "again.toml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.toml").augment.model_dump() == recipe.augment.model_dump()


def test_the_policy_of_the_lowest_validation_loss_is_taken_and_said(corpus, tmp_path):
    lines = []
    out = quietly(automatic(), tmp_path / "run", corpus, say=lines.append)
    [said] = [line for line in lines if line.startswith("augmentation ")]
    losses = {name: float(loss) for name, loss in re.findall(r"(\w+) ([\d.]+) \(accuracy", said)}
    assert set(losses) == set(POLICIES)
    chosen = load_recipe(out / "recipe.toml").augment.policy
    assert losses[chosen] == min(losses.values()) and said.startswith(f"augmentation {chosen}: ")
    assert len([line for line in lines if line.startswith("epoch ")]) == 3  # short runs are not reported


def test_the_choice_is_the_same_again_and_so_are_the_weights(corpus, tmp_path):
    runs = [quietly(automatic(), tmp_path / name, corpus) for name in ("one", "two")]
    assert len({(run / "last" / "model.safetensors").read_bytes() for run in runs}) == 1
    assert len({(run / "recipe.toml").read_bytes() for run in runs}) == 1


def test_a_stop_meanwhile_is_said_and_the_folder_can_be_used_again(corpus, tmp_path, monkeypatch):
    real = module.train_epoch

    def stopping(state, stop, loggers):
        stop.received = 15
        real(state, stop, loggers)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_epoch", stopping)
        error = problem(quietly, automatic(), tmp_path / "run", corpus)
    assert "while the augmentation was chosen" in error.problem and error.exit_code == 143
    assert (quietly(automatic(), tmp_path / "run", corpus) / "report.json").is_file()


@pytest.mark.parametrize("epochs, short", [(1, 1), (2, 2), (20, 3), (60, 6)])
def test_short_runs_take_a_bounded_share(epochs, short):
    assert short_epochs(epochs) == short
