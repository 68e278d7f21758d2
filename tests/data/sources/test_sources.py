"""Each corpus: which clips and labels it offers, and what it refuses."""

import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from archives import tar_with
from corpora import write

from aumcli.data import sources
from aumcli.data.sources import PrepareRequest, folder, fsdd, synth
from aumcli.errors import AumError
from aumcli.utils.download import members

ROOT = Path(__file__).resolve().parents[3]
ARCHIVE = Path(os.environ.get("AUM_SHARED", ROOT.parent / "shared")) / "data" / "fsdd.tar.gz"
SYNTH_MEANS = [435, 1816, 1149, 840, 316, 1947, 515, 1522, 3502, 3270]
needs_fsdd = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE} is not here: set AUM_SHARED")


def test_names_and_unknown_corpus():
    assert {"folder", "fsdd", "synth"} <= set(sources.names())
    for name in sources.names():
        assert callable(sources.load(name).index)
    with pytest.raises(AumError, match="unknown corpus 'nope'; known are .*fsdd.*synth"):
        sources.load("nope")
    with pytest.raises(AumError, match="fix: did you mean esc50. for your own sounds"):
        sources.load("esc5")


@pytest.mark.parametrize("module, option", [(fsdd, "split"), (fsdd, "seed"), (synth, "split"), (synth, "source")])
def test_options_without_use_are_refused(tmp_path, module, option):
    given = {"split": dict(shares=(80, 10, 10)), "seed": dict(seed=1), "source": dict(source=tmp_path)}[option]
    with pytest.raises(AumError, match=f"--{option} can't be used"):
        module.index(PrepareRequest("corpus", tmp_path / "out", **given))


# synth


def log_mel(sound, n_mels=40):
    frames = np.lib.stride_tricks.sliding_window_view(sound / 32768, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2  # (frames, 257)
    bins = 1127 * np.log1p(np.arange(257) * 16000 / 512 / 700)
    edges = np.linspace(bins[1], bins[-1], n_mels + 2)
    rise, fall = (bins[:, None] - edges[:-2]), (edges[2:] - bins[:, None])
    filters = np.maximum(0, np.minimum(rise, fall) / (edges[1] - edges[0]))  # (257, mels)
    return np.log(np.maximum(power @ filters, 1e-7))  # (frames, mels)


def test_synth_writes_what_it_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "CLIPS_PER_KIND", {"train": 3, "val": 1, "test": 2})
    index = synth.index(PrepareRequest("synth", tmp_path))
    assert [label.name for label in index.labels] == list(synth.KINDS) and len(index.labels) == 10
    assert Counter((clip.labels[0], clip.split) for clip in index.clips) == {
        (kind, split): count for kind in synth.KINDS for split, count in (("train", 3), ("val", 1), ("test", 2))
    }
    before = {clip.path: clip.path.read_bytes() for clip in index.clips}
    assert len(set(before.values())) == 60  # no two are the same
    info = soundfile.info(index.clips[0].path)
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (16000, 16000, 1, "PCM_16")
    index = synth.index(PrepareRequest("synth", tmp_path))  # again, over the old ones
    assert {clip.path: clip.path.read_bytes() for clip in index.clips} == before
    other = synth.index(PrepareRequest("synth", tmp_path, seed=1))
    assert not {clip.path.read_bytes() for clip in other.clips} & set(before.values())


def test_synth_leaves_foreign_files_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "CLIPS_PER_KIND", {"train": 1})
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.wav").write_text("precious")
    with pytest.raises(AumError, match="mine.wav"):
        synth.index(PrepareRequest("synth", tmp_path))
    assert (tmp_path / "train" / "mine.wav").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_synth_is_the_same_on_every_machine():
    # a checksum that doesn't mind the last bit: mean of absolute values of one clip of each kind
    means = [round(float(np.abs(synth.synthesise(kind, "train", 0).astype(float)).mean())) for kind in synth.KINDS]
    assert means == SYNTH_MEANS


def test_synth_spreads_loudness_and_never_clips():
    peaks = np.array(
        [
            np.abs(synth.synthesise(kind, "val", number).astype(float)).max()
            for kind in synth.KINDS
            for number in range(10)
        ]
    )
    peaks_db = 20 * np.log10(peaks / 32768)
    assert peaks_db.max() < -1.9 and peaks_db.min() > -26.1 and peaks_db.max() - peaks_db.min() > 20


def test_synth_average_spectrum_tells_only_a_part():
    """A linear classifier on the mean log-mel spectrum: far above chance (10 %), far from solving it."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    sets = {}
    for split, count in (("train", 40), ("test", 20)):
        sounds = [synth.synthesise(kind, split, number) for kind in synth.KINDS for number in range(count)]
        means = np.stack([log_mel(sound).mean(axis=0) for sound in sounds])  # (clips, mels)
        sets[split] = means - means.mean(), np.repeat(np.arange(10), count)
    model = linear_model.LogisticRegression(max_iter=500).fit(*sets["train"])
    accuracy = model.score(*sets["test"])
    print(f"linear classifier on the mean spectrum: {accuracy:.3f}")
    assert 0.45 < accuracy < 0.8


# fsdd


@needs_fsdd
def test_fsdd_from_the_archive(tmp_path):
    index = fsdd.index(PrepareRequest("fsdd", tmp_path / "out", ARCHIVE))
    assert [label.name for label in index.labels][:3] == ["zero", "one", "two"] and len(index.labels) == 10
    assert Counter(clip.split for clip in index.clips) == {"train": 2400, "val": 300, "test": 300}
    clip = next(clip for clip in index.clips if clip.path.name == "7_theo_4.wav")
    assert (clip.labels, clip.split, clip.group) == (("seven",), "test", "theo")
    assert clip.path == tmp_path / "out" / "recordings" / "7_theo_4.wav" and clip.path.exists()
    takes = {
        split: {int(clip.path.stem.split("_")[2]) for clip in index.clips if clip.split == split}
        for split in ("train", "val", "test")
    }
    assert takes == {"test": set(range(5)), "val": set(range(5, 10)), "train": set(range(10, 50))}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["recordings"]
    # taken from those recordings in place, given as the folder or as the one above
    for source in (tmp_path / "out" / "recordings", tmp_path / "out"):
        assert fsdd.index(PrepareRequest("fsdd", tmp_path / "other", source)).clips == index.clips
    assert not (tmp_path / "other").exists()
    # without a source they are found where the last call left them: no network needed
    assert fsdd.index(PrepareRequest("fsdd", tmp_path / "out")).clips == index.clips
    zipped = tmp_path / "fsdd.zip"
    with zipfile.ZipFile(zipped, "w") as packed:
        for clip in index.clips:
            packed.write(clip.path, f"free-spoken-digit-dataset/recordings/{clip.path.name}")
    assert len(fsdd.index(PrepareRequest("fsdd", tmp_path / "zip", zipped)).clips) == 3000
    changed = tmp_path / "out" / "recordings" / "0_lucas_3.wav"
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AumError, match="at least one differs"):
        fsdd.index(PrepareRequest("fsdd", tmp_path / "other", tmp_path / "out"))
    changed.unlink()
    with pytest.raises(AumError, match="lacks 1 of the 3000 .*0_lucas_3.wav"):
        fsdd.index(PrepareRequest("fsdd", tmp_path / "other", tmp_path / "out"))


def test_fsdd_takes_recordings_only(tmp_path):
    archive = tar_with(tmp_path / "some.tar.gz", {"x-1/recordings/0_theo_0.wav": b"a", "x-1/README": b"d"})
    assert [(name, file.read()) for name, file in members(archive, fsdd._recording, 100)] == [("0_theo_0.wav", b"a")]
    with pytest.raises(AumError, match="lacks 2999"):
        fsdd.index(PrepareRequest("fsdd", tmp_path / "out", archive))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "some.tar.gz"]


def test_fsdd_bad_sources(tmp_path):
    (tmp_path / "text.tar.gz").write_text("no archive")
    cut = tar_with(tmp_path / "cut.tar.gz", {"recordings/0_theo_0.wav": os.urandom(50000)})
    cut.write_bytes(cut.read_bytes()[:30000])
    for name, words in (
        ("text.tar.gz", "no archive, or damaged"),
        ("cut.tar.gz", "damaged"),
        ("no.zip", "doesn't exist"),
    ):
        with pytest.raises(AumError, match=words) as caught:
            fsdd.index(PrepareRequest("fsdd", tmp_path / "out", tmp_path / name))
        assert name in caught.value.problem and caught.value.fix
    with pytest.raises(AumError, match="lacks 3000"):
        fsdd.index(PrepareRequest("fsdd", tmp_path / "out", tmp_path))


def test_fsdd_without_network_says_source(tmp_path, monkeypatch):
    monkeypatch.setattr(fsdd, "URL", "http://127.0.0.1:1/fsdd.tar.gz")
    with pytest.raises(AumError, match="--source"):
        fsdd.index(PrepareRequest("fsdd", tmp_path))


@needs_fsdd
def test_fsdd_removes_a_download_that_is_wrong(tmp_path, monkeypatch, server):
    monkeypatch.setattr(fsdd, "URL", server[0] + "/good")
    with pytest.raises(AumError, match="no archive, or damaged"):
        fsdd.index(PrepareRequest("fsdd", tmp_path))
    assert list(tmp_path.iterdir()) == []


# folder


def sounds(root, files, seed=0):
    """Write a noise of its own to each path below root."""
    rng = np.random.default_rng(seed)
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(400), 8000)
    return root


def arranged(root, out="/nowhere", **options):
    index = folder.index(PrepareRequest("folder", Path(out), root, **options))
    clips, warnings = index.arrange(index.clips, index.skipped)
    return index, clips, index.warnings + warnings


def table(clips):
    return Counter((clip.labels[0], clip.split) for clip in clips)


def test_folder_shares_by_class(tmp_path):
    sounds(
        tmp_path,
        [f"dog/{n}.wav" for n in range(40)]
        + [f"cat/deep/{n}.WAV" for n in range(10)]
        + [f"emu/{n}.flac" for n in range(3)]
        + [f"eel/{n}.ogg" for n in range(2)]
        + ["yak/0.wav"],
    )
    index, clips, warnings = arranged(tmp_path)
    assert [label.id for label in index.labels] == ["cat", "dog", "eel", "emu", "yak"]
    assert table(clips) == {
        ("dog", "train"): 32,
        ("dog", "val"): 4,
        ("dog", "test"): 4,
        ("cat", "train"): 8,
        ("cat", "val"): 1,
        ("cat", "test"): 1,
        ("emu", "train"): 1,
        ("emu", "val"): 1,
        ("emu", "test"): 1,
        ("eel", "train"): 2,
        ("yak", "train"): 1,
    }
    assert all(clip.path.is_absolute() for clip in clips)
    assert warnings == [f"2 classes have no clip in {split}: eel, yak" for split in ("val", "test")]
    assert table(arranged(tmp_path, shares=(50, 50, 0))[1]) == {
        ("dog", "train"): 20,
        ("dog", "val"): 20,
        ("cat", "train"): 5,
        ("cat", "val"): 5,
        ("emu", "train"): 1,
        ("emu", "val"): 2,
        ("eel", "train"): 1,
        ("eel", "val"): 1,
        ("yak", "train"): 1,
    }


def test_folder_split_follows_content_alone(tmp_path):
    first = sounds(tmp_path / "1", [f"{name}/{n}.wav" for name in "ab" for n in range(20)])
    second = tmp_path / "2"
    for path in first.rglob("*.wav"):
        (second / path.parent.name / "sub").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, second / path.parent.name / "sub" / f"x{99 - int(path.stem)}.wav")
    splits = [{clip.path.read_bytes(): clip.split for clip in arranged(root)[1]} for root in (first, second)]
    assert splits[0] == splits[1]
    assert splits[0] != {clip.path.read_bytes(): clip.split for clip in arranged(first, seed=1)[1]}


def test_folder_duplicates_stay_together_and_are_reported(tmp_path):
    sounds(tmp_path, [f"{name}/{n}.wav" for name in "ab" for n in range(10)])
    for n in range(10):
        shutil.copy(tmp_path / "a" / f"{n}.wav", tmp_path / "a" / f"copy{n}.wav")
    shutil.copy(tmp_path / "b" / "3.wav", tmp_path / "a" / "other.wav")
    _, clips, warnings = arranged(tmp_path)
    split = {clip.path.relative_to(tmp_path).as_posix(): clip.split for clip in clips}
    assert all(split[f"a/{n}.wav"] == split[f"a/copy{n}.wav"] for n in range(10))
    assert table(clips)["a", "val"] == table(clips)["a", "test"] == 2
    assert split["b/3.wav"] == split["a/other.wav"] == "train"  # a contradiction is not tested on
    assert any("10 sounds occur several times in one class" in text for text in warnings)
    assert any(
        "1 sound occurs several times under different classes" in text and "other.wav" in text for text in warnings
    )


@pytest.mark.parametrize("val, test", [("val", "test"), ("Validation", "eval"), ("dev", "testing")])
def test_folder_with_splits(tmp_path, val, test):
    sounds(tmp_path, [f"{split}/{name}/{n}.wav" for split in ("train", val, test) for name in "ab" for n in range(2)])
    _, clips, warnings = arranged(tmp_path)
    assert table(clips) == {(name, split): 2 for name in "ab" for split in ("train", "val", "test")} and not warnings
    with pytest.raises(AumError, match="--split can't be used"):
        arranged(tmp_path, shares=(80, 10, 10))


def test_folder_carves_the_missing_split_from_train(tmp_path):
    sounds(tmp_path, [f"train/{name}/{n}.wav" for name in "ab" for n in range(20)])
    sounds(tmp_path, [f"test/{name}/{n}.wav" for name in "ab" for n in range(5)], seed=1)
    _, clips, warnings = arranged(tmp_path)
    assert table(clips) == {
        (name, split): count for name in "ab" for split, count in (("train", 18), ("val", 2), ("test", 5))
    }
    assert any("no folder for val: taken from train, 10 % for val" in text for text in warnings)
    shutil.copy(tmp_path / "train" / "a" / "0.wav", tmp_path / "test" / "a" / "same.wav")
    assert any("in different splits" in text for text in arranged(tmp_path)[2])


def test_a_class_may_be_called_train(tmp_path):
    sounds(tmp_path, ["train/1.wav", "plane/1.wav"])
    assert [label.id for label in arranged(tmp_path)[0].labels] == ["plane", "train"]
    shutil.move(tmp_path / "train" / "1.wav", sounds(tmp_path, ["train/steam/2.wav"]) / "train" / "steam")
    assert [label.id for label in arranged(tmp_path)[0].labels] == ["plane", "train"]


@pytest.mark.parametrize(
    "files, words",
    [
        (["dog/1.wav", "dog/2.wav"], "1 class folder.*dog"),
        (["1.wav", "2.wav"], "no sub-folders"),
        (["dog/1.wav", "cat/1.wav", "pig/notes.txt"], "pig holds no sounds"),
        (["dog/1.wav", "a;b/1.wav"], "can't be the name of a class"),
        (["train/a/1.wav", "train/b/1.wav", "val/a/1.wav", "other/c/1.wav"], "beside others .other."),
        (["train/a/1.wav", "train/b/1.wav", "val/a/1.wav", "dev/b/1.wav"], "several folders for val: dev, val"),
        (["train/a/1.wav", "train/b/1.wav", "test/c/1.wav"], "'c' has no sound to train on"),
    ],
)
def test_folder_wrong_layouts(tmp_path, files, words):
    sounds(tmp_path, [name for name in files if name.endswith(".wav")])
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    with pytest.raises(AumError, match=words) as caught:
        arranged(tmp_path)
    assert caught.value.fix


def test_folder_missing_or_not_given(tmp_path):
    for source, words in (
        (None, "which folder"),
        (tmp_path / "no", "no doesn't exist"),
        (write(tmp_path / "t.csv", ""), "is not a folder"),
    ):
        with pytest.raises(AumError, match=words):
            arranged(source)
    with pytest.raises(AumError, match="look like a class"):
        arranged(sounds(tmp_path, ["a/1.wav", "b/1.wav"]), out=tmp_path / "prepared")


def test_folder_names_everything_it_passes_over(tmp_path):
    sounds(tmp_path, ["a/1.wav", "b/1.wav", "beside.wav"])
    for name in ("README.md", "a/cover.jpg", "a/._1.wav", "b/song.m4a", "manifest.csv"):
        (tmp_path / name).write_text("x")
    index = arranged(tmp_path)[0]
    assert [(Path(item.path).name, item.reason) for item in index.skipped] == [
        ("beside.wav", "lies beside the class folders, so it has no class")
    ]
    assert [clip.path.name for clip in index.clips] == ["1.wav", "1.wav", "song.m4a"]  # the latter: an error names it
    assert len(index.warnings) == 1 and "2 files" in index.warnings[0]
    assert "README.md" in index.warnings[0] and "a/cover.jpg" in index.warnings[0]


def test_folder_file_name_that_is_not_utf8(tmp_path):
    sounds(tmp_path, ["a/1.wav", "a/2.wav", "b/1.wav"])
    try:
        os.rename(tmp_path / "a" / "2.wav", os.fsencode(tmp_path / "a") + b"/\xff.wav")
    except OSError:
        pytest.skip("this file system only takes UTF-8")
    index = arranged(tmp_path)[0]
    assert not index.skipped and len(index.clips) == 3
    assert os.fsencode(index.clips[1].path.name) == b"\xff.wav"


@pytest.fixture
def locked(monkeypatch):
    """Folders that can't be listed, for root too."""
    names, listers = set(), {"scandir": os.scandir, "listdir": os.listdir}

    def refusing(lister):
        def wrapped(path="."):
            if os.path.basename(os.fspath(path)) in names:
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return lister(path)

        return wrapped

    for name, lister in listers.items():
        monkeypatch.setattr(os, name, refusing(lister))
    return names


def test_folder_names_what_cannot_be_listed_and_takes_the_rest(tmp_path, locked):
    sounds(tmp_path, ["a/1.wav", "a/deep/2.wav", "b/1.wav", "pig/1.wav"])
    locked |= {"deep", "pig"}
    index, clips, _ = arranged(tmp_path)
    assert [(Path(item.path).name, item.reason.partition(" can't be listed: ")[2]) for item in index.skipped] == [
        ("deep", "Permission denied"),
        ("pig", "Permission denied"),
    ]
    assert f"chmod -R u+rX {tmp_path}/a/deep" in index.skipped[0].fix
    assert str(tmp_path / "a/deep") in index.skipped[0].reason
    assert [label.id for label in index.labels] == ["a", "b"] and len(clips) == 2
    locked.add("b")
    words = "1 class folder with sounds: a; .*/b can't be listed.*\n.*chmod -R u.rX "
    with pytest.raises(AumError, match=words) as caught:
        arranged(tmp_path)
    assert caught.value.exit_code == 1
    locked.add(tmp_path.name)
    with pytest.raises(AumError, match="can't be listed: Permission denied"):
        arranged(tmp_path)


def test_folder_passes_over_what_systems_leave_and_says_so(tmp_path):
    sounds(
        tmp_path,
        [
            "a/1.wav",
            "b/1.wav",
            "__MACOSX/a/2.wav",
            "@eaDir/x/3.wav",
            "a/@eaDir/4.wav",
            "$RECYCLE.BIN/5.wav",
            "a/.hidden/6.wav",
        ],
    )
    for name in (".DS_Store", "a/Thumbs.db", "a/._1.wav", "b/desktop.ini"):
        (tmp_path / name).write_text("x")
    index, clips, warnings = arranged(tmp_path)
    assert [label.id for label in index.labels] == ["a", "b"] and len(clips) == 2 and not index.skipped
    (note,) = index.notes
    assert ": 9, " in note and "__MACOSX" in note
    assert not any("__MACOSX" in text for text in warnings)
    files = ["train/a/1.wav", "train/b/1.wav", "test/a/1.wav", "__MACOSX/1.wav", ".git/x.wav"]
    index = arranged(sounds(tmp_path / "splits", files))[0]
    assert [label.id for label in index.labels] == ["a", "b"]


def test_folder_each_kept_silence_is_a_sound_of_its_own(tmp_path):
    sounds(tmp_path, [f"dog/{n}.wav" for n in range(10)])
    (tmp_path / "silence").mkdir()
    for n in range(10):
        soundfile.write(tmp_path / "silence" / f"{n}.wav", np.zeros(400), 8000)
    assert table(arranged(tmp_path)[1])["silence", "train"] == 10
    _, clips, warnings = arranged(tmp_path, keep=frozenset({"silent"}))
    assert (
        table(clips)
        == {
            (name, split): count
            for name in ("dog", "silence")
            for split, count in (("train", 8), ("val", 1), ("test", 1))
        }
        and not warnings
    )
