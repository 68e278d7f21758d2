"""Frontend values that are measured on the training split."""

from pathlib import Path

import pytest
import torch
from tiny import CLASSES, sound

from aumcli.core.frontend import LogMel
from aumcli.data.fit import fit_recipe, measure_normalisation
from aumcli.data.manifest import Clip, read_manifest
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def test_quickstart_fits_itself(tmp_path):
    clips = [Clip(sound(tmp_path / f"{i}.wav", hz, seconds=0.6 + 0.02 * i, rate_hz=11025), labels=(name,))
             for i, (name, hz) in enumerate([*CLASSES.items()] * 6)]
    clips.append(Clip(sound(tmp_path / "rare.wav", 300.0, seconds=0.7, rate_hz=22050), labels=("low",)))
    recipe = fit_recipe(load_recipe("quickstart"), clips, 3, False)
    assert recipe.frontend.sample_rate_hz == 11025                         # that of most
    assert 0.9 <= recipe.frontend.clip_s <= 1.1                            # 95 % of the clips fit in whole
    assert recipe.frontend.frames % recipe.model.patch_frames == 0
    assert (recipe.model.n_classes, recipe.train.loss, recipe.data.fit) == (3, "cross_entropy", ())
    from aumcli.data.dataset import Waveforms

    logmel, waveforms = LogMel(recipe.frontend), Waveforms(clips, 11025, 0)
    values = torch.cat([logmel.normalise(logmel.energies(torch.from_numpy(waveforms[i])[None])).flatten()
                        for i in range(len(clips))])
    assert abs(values.mean()) < 1e-3 and values.std() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("seconds, clip_s", [(0.1, 0.5), (12.0, 10.0)])
def test_fitted_length_has_limits(tmp_path, seconds, clip_s):
    clips = [Clip(sound(tmp_path / f"{i}.wav", 300.0, seconds, seed=i), labels=("low",)) for i in range(2)]
    recipe = fit_recipe(load_recipe("quickstart"), clips, 2, False)
    assert recipe.frontend.clip_s == pytest.approx(clip_s, abs=0.06)


def test_fitted_rate_has_a_limit(tmp_path):
    clips = [Clip(sound(tmp_path / "a.wav", 300.0, rate_hz=48000), labels=("low",))]
    assert fit_recipe(load_recipe("quickstart"), clips, 2, False).frontend.sample_rate_hz == 16000


def test_slices_are_measured_not_files(tmp_path):
    path = sound(tmp_path / "long.wav", 300.0, seconds=20)
    clips = [Clip(path, float(i), i + 1.0, ("low",)) for i in range(20)]
    assert fit_recipe(load_recipe("quickstart"), clips, 2, False).frontend.clip_s == pytest.approx(1.0, abs=0.06)


def test_nothing_is_fitted_unless_asked(corpus):
    recipe = load_recipe("quickstart", ["data.fit=[]"])
    fitted = fit_recipe(recipe, read_manifest(corpus).split("train"), 3, False)
    assert fitted.frontend == recipe.frontend


def test_a_long_clip_is_measured_in_pieces(tmp_path):
    """Two halves of a file, and the file: the same sound, but for the frame between the pieces."""
    path = sound(tmp_path / "long.wav", 300.0, seconds=60, rate_hz=8000)
    recipe = load_recipe("quickstart", ["frontend.sample_rate_hz=8000"])
    whole = measure_normalisation(recipe, [Clip(path)])
    assert whole == pytest.approx(measure_normalisation(recipe, [Clip(path, 0.0, 30.0), Clip(path, 30.0, 60.0)]), abs=1e-5)
