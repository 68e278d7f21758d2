"""Frontend values that are measured on the training split."""

import pytest
import torch
from tiny import CLASSES, sound

from aumcli.core.frontend import LogMel
from aumcli.data.infer import measure_normalisation, sample_rates, unused_band
from aumcli.data.manifest import Clip, read_manifest
from aumcli.errors import AumError
from aumcli.plan import infer_frontend
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def test_quickstart_fits_itself(tmp_path):
    clips = [
        Clip(sound(tmp_path / f"{i}.wav", hz, seconds=0.6 + 0.02 * i, rate_hz=11025), labels=(name,))
        for i, (name, hz) in enumerate([*CLASSES.items()] * 6)
    ]
    clips.append(Clip(sound(tmp_path / "rare.wav", 300.0, seconds=0.7, rate_hz=22050), labels=("low",)))
    recipe = infer_frontend(load_recipe("quickstart"), clips, 3, False)
    assert recipe.frontend.sample_rate_hz == 11025  # that of most
    assert 0.9 <= recipe.frontend.clip_s <= 1.1  # 95 % of the clips fit in whole
    assert recipe.frontend.frames % recipe.model.patch_frames == 0
    assert (recipe.model.n_classes, recipe.train.loss, recipe.data.infer) == (3, "cross_entropy", ())
    from aumcli.data.datasets.waveforms import Waveforms

    logmel, waveforms = LogMel(recipe.frontend), Waveforms(clips, 11025, 0)
    values = torch.cat(
        [logmel.normalise(logmel.energies(torch.from_numpy(waveforms[i])[None])).flatten() for i in range(len(clips))]
    )
    assert abs(values.mean()) < 1e-3 and values.std() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("seconds, clip_s", [(0.1, 0.5), (12.0, 10.0)])
def test_fitted_length_has_limits(tmp_path, seconds, clip_s):
    clips = [Clip(sound(tmp_path / f"{i}.wav", 300.0, seconds, seed=i), labels=("low",)) for i in range(2)]
    recipe = infer_frontend(load_recipe("quickstart"), clips, 2, False)
    assert recipe.frontend.clip_s == pytest.approx(clip_s, abs=0.06)


def test_fitted_rate_has_a_limit(tmp_path):
    clips = [Clip(sound(tmp_path / "a.wav", 300.0, rate_hz=48000), labels=("low",))]
    assert infer_frontend(load_recipe("quickstart"), clips, 2, False).frontend.sample_rate_hz == 16000


def test_slices_are_measured_not_files(tmp_path):
    path = sound(tmp_path / "long.wav", 300.0, seconds=20)
    clips = [Clip(path, float(i), i + 1.0, ("low",)) for i in range(20)]
    assert infer_frontend(load_recipe("quickstart"), clips, 2, False).frontend.clip_s == pytest.approx(1.0, abs=0.06)


def test_nothing_is_fitted_unless_asked(corpus):
    recipe = load_recipe("quickstart", ["data.infer=[]"])
    fitted = infer_frontend(recipe, read_manifest(corpus).split("train"), 3, False)
    assert fitted.frontend == recipe.frontend


def test_a_long_clip_is_measured_in_pieces(tmp_path):
    """Two halves of a file, and the file: the same sound, but for the frame between the pieces."""
    path = sound(tmp_path / "long.wav", 300.0, seconds=60, rate_hz=8000)
    config = load_recipe("quickstart", ["frontend.sample_rate_hz=8000"]).frontend
    whole = measure_normalisation(config, [Clip(path)])
    assert whole == pytest.approx(
        measure_normalisation(config, [Clip(path, 0.0, 30.0), Clip(path, 30.0, 60.0)]), abs=1e-5
    )


def test_what_the_user_set_is_kept(tmp_path):
    clips = [Clip(sound(tmp_path / f"{i}.wav", 300.0, seconds=0.6, seed=i), labels=("low",)) for i in range(3)]
    wanted = load_recipe("quickstart", ["frontend.sample_rate_hz=250000", "frontend.frames=60"])
    recipe = infer_frontend(wanted, clips, 2, False)
    assert (recipe.frontend.sample_rate_hz, recipe.frontend.frames, recipe.model.frames) == (250000, 60, 60)
    assert recipe.frontend.mean != wanted.frontend.mean  # the rest is measured, at that rate
    wanted = load_recipe("quickstart", ["frontend.mean=-4", "frontend.std=3", "train.loss=bce"])
    recipe = infer_frontend(wanted, clips, 2, False)
    assert (recipe.frontend.mean, recipe.frontend.std, recipe.train.loss) == (-4, 3, "bce")
    assert recipe.frontend.sample_rate_hz == 8000


def test_another_number_of_classes_is_refused(tmp_path):
    clips = [Clip(sound(tmp_path / "a.wav", 300.0), labels=("low",))]
    with pytest.raises(AumError, match="n_classes is 5 .* 2 classes\n.*--set model.n_classes=2"):
        infer_frontend(load_recipe("quickstart", ["model.n_classes=5"]), clips, 2, False)
    assert infer_frontend(load_recipe("quickstart", ["model.n_classes=2"]), clips, 2, False).model.n_classes == 2
    assert infer_frontend(load_recipe("vggsound"), clips, 2, False).model.n_classes == 2  # 309 are the whole corpus'
    with pytest.raises(AumError, match="n_classes is 20 "):
        infer_frontend(load_recipe("vggsound", ["model.n_classes=20"]), clips, 2, False)


@pytest.mark.parametrize(
    "rates, rate_hz, said",
    [
        ({8000: 3}, 16000, ()),
        ({16000: 3}, 16000, ()),
        ({}, 16000, ()),
        ({44100: 3}, 16000, ("22.05 kHz", "8 kHz", "frontend.sample_rate_hz=44100")),
        ({16000: 9, 48000: 1}, 16000, ("1 of 10 recordings", "24 kHz", "frontend.sample_rate_hz=48000")),
        ({250000: 3}, 16000, ("125 kHz", "sample_rate_hz=250000", "window_ms=4.0", "hop_ms=2", "low_hz=8000")),
        ({8000: 3}, 4000, ("4 kHz", "2 kHz")),
    ],
)
def test_the_unused_band(rates, rate_hz, said):
    text = unused_band(rates, rate_hz)
    assert all(words in text for words in said) and bool(said) == bool(text)
    assert ("window_ms" in text) == (250000 in rates)
    if text:
        settings = text.partition("train with ")[2].replace("--set ", "").split()
        front = load_recipe("quickstart", settings).frontend
        assert unused_band(rates, front.sample_rate_hz) == "" and not (LogMel(front).filters.sum(0) == 0).any()


def test_where_nobody_noted_the_rates_the_headers_tell(corpus, tmp_path):
    from aumcli.data.manifest import write_manifest

    manifest = read_manifest(corpus)
    assert sample_rates(manifest, manifest.split("train")) == {8000: 30}
    write_manifest(tmp_path / "copy", manifest.clips, manifest.labels, {})
    assert sample_rates(read_manifest(tmp_path / "copy"), manifest.split("train")) == {8000: 18}
    assert sample_rates(read_manifest(tmp_path / "copy"), [Clip(tmp_path / "gone.wav")]) == {}
