"""Training from shards: the same order whatever reads it, in bounded memory, from disk and over HTTP."""

import functools
import http.server
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from tiny import CLASSES, one_thread, sound, tiny
from training import quietly

from aumcli.config import DataConfig
from aumcli.data.datasets import shards, stream
from aumcli.data.datasets.shards import read_index
from aumcli.data.datasets.stream import ShardStream, index_of_shards, shard_streams
from aumcli.data.manifest import read_manifest
from aumcli.data.splits import training_splits
from aumcli.errors import AumError
from aumcli.evaluate import evaluate
from aumcli.prepare import prepare

pytest_plugins = ["aum_fixtures"]
pytest.importorskip("webdataset")
PINNED = (
    "data.infer=[]",
    "frontend.sample_rate_hz=8000",
    "frontend.frames=48",
    "train.ema=0",
    "train.epochs=2",
    "augment.mixup=0",
)


def make(root: Path, each: int = 20, groups: int = 0) -> Path:
    """A prepared corpus with shards of 8 clips: `each` clips of three classes to train on, 4 to validate."""
    rows = []
    for name, hz in CLASSES.items():
        for number in range(each + 4):
            path = sound(root / "sounds" / f"{name}-{number}.wav", hz, seed=number)
            rows.append(
                f"{path},{name},{'train' if number < each else 'val'},{f'g{number % groups}' if groups else ''}"
            )
    (root / "t.csv").write_text("path,label,split,speaker\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_CLIPS", 8)
        prepare("csv", root / "data", source=root / "t.csv", shards=True)
    return root / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Shards whose sound files are gone."""
    root = tmp_path_factory.mktemp("shards")
    made = make(root)
    (root / "sounds").rename(root / "away")
    return made


def items(batches):
    return [[(clip, 0.0) for clip in batch] for batch in batches]


def streams(folder: Path, *overrides: str) -> tuple[ShardStream, ShardStream]:
    manifest, recipe = read_manifest(folder), tiny(*PINNED, *overrides)
    rate_hz = recipe.frontend.sample_rate_hz
    return shard_streams(manifest, index_of_shards(manifest), recipe.data, recipe.augment, rate_hz)


def test_every_clip_once_with_its_own_sound_whatever_the_workers(folder):
    train_stream, val = streams(folder, "data.shuffle_buffer_clips=10")
    batches = train_stream.batches(7, 3, 5)
    assert sorted(clip for batch in batches for clip in batch) == list(range(60))
    assert batches == train_stream.batches(7, 3, 5) != train_stream.batches(7, 3, 6)
    away = {clip.path: folder.parent / "away" / clip.path.name for clip in train_stream.clips}
    for workers in (0, 3):
        for batch, waveforms in zip(batches, train_stream.load(items(batches), workers, None, 3, 5), strict=True):
            for clip, waveform in zip(batch, waveforms, strict=True):
                expected = shards.load_audio(away[train_stream.clips[clip].path], 8000)[0]
                np.testing.assert_array_equal(waveform, expected)
    order = [[*range(i, min(i + 5, 12))] for i in range(0, 12, 5)]
    assert len(val) == 12 and [len(batch) for batch in val.load(items(order), 0)] == [5, 5, 2]


def test_the_end_of_an_epoch_and_a_part_of_each_batch_can_be_loaded_alone(folder):
    train_stream, _ = streams(folder, "data.shuffle_buffer_clips=10")
    batches = train_stream.batches(6, 0, 1)
    whole = [*train_stream.load(items(batches), 0, None, 0, 1)]
    for some, expected in (
        (batches[4:], whole[4:]),
        ([batch[1::2] for batch in batches], [each[1::2] for each in whole]),
    ):
        for got, want in zip(train_stream.load(items(some), 0, None, 0, 1), expected, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_balanced_sampling_draws_with_replacement(folder):
    train_stream, _ = streams(folder, "data.shuffle_buffer_clips=16")
    weights = np.full(60, 0.1 / 59)
    weights[7] = 0.9
    batches = train_stream.batches(6, 0, 0, weights)
    drawn = [clip for batch in batches for clip in batch]
    assert len(drawn) == 60 and drawn.count(7) > 40
    loaded = [waveform for batch in train_stream.load(items(batches), 0, None, 0, 0) for waveform in batch]
    sevens = [waveform for clip, waveform in zip(drawn, loaded, strict=True) if clip == 7]
    assert all(np.array_equal(sevens[0], each) for each in sevens)


def test_the_order_is_well_mixed():
    order = np.arange(4000)
    mixed = np.array(stream._through_buffer(order, 1000, np.random.default_rng(0)))
    assert sorted(mixed) == order.tolist() and abs(np.corrcoef(order, mixed)[0, 1]) < 0.95
    assert (np.arange(4000) - mixed).min() >= -1000  # no clip is wanted before it can have been read


def test_memory_is_that_of_the_buffer(folder, monkeypatch):
    held, original = [], stream.heapq.merge

    def counted(*lanes, key):
        for number, item in enumerate(original(*lanes, key=key)):
            held.append(number)
            yield item

    monkeypatch.setattr(stream.heapq, "merge", counted)
    train_stream, _ = streams(folder, "data.shuffle_buffer_clips=10")
    batches = train_stream.batches(5, 0, 0)
    for number, _ in enumerate(train_stream.load(items(batches), 0, None, 0, 0)):
        assert len(held) <= 10 + 5 * (number + 2)  # the buffer, what was given, a batch ahead


def test_damage_stops_the_run(folder, tmp_path):
    copy = _copied(folder, tmp_path)
    path = sorted((copy / "shards").glob("train*.tar"))[2]
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(bytes(data))
    train_stream, _ = streams(copy)
    batches = train_stream.batches(6, 0, 0)
    with pytest.raises(AumError, match="damaged") as caught:
        for batch in train_stream.load(items(batches), 0, None, 0, 0):
            for item in batch:
                if isinstance(item, AumError):  # a clip's own digest: it counts as an unreadable clip
                    raise item
    assert path.name in caught.value.problem


def _copied(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to / "copy"))


def test_shards_that_do_not_belong(folder, tmp_path):
    copy = _copied(folder, tmp_path)
    manifest = read_manifest(copy)
    index = json.loads((copy / "shards" / "shards.json").read_text())
    (copy / "shards" / index["shards"][0]["name"]).unlink()
    with pytest.raises(AumError, match="1 of .* shards is missing"):
        index_of_shards(manifest)
    (copy / "shards" / "shards.json").write_text(json.dumps(index | {"manifest_sha256": "0" * 64}))
    with pytest.raises(AumError, match="another manifest"):
        index_of_shards(manifest)
    recipe = tiny()
    with pytest.raises(AumError, match="sample_rate"):
        shard_streams(read_manifest(folder), read_index(folder), recipe.data, recipe.augment, 8000)
    with pytest.raises(AumError, match="no shards of dev"):
        streams(folder, "data.val=dev")


def test_files_win_over_shards(tmp_path):
    assert index_of_shards(read_manifest(make(tmp_path, each=4))) is None


def test_a_share_is_made_of_whole_shards_and_of_nobody_who_is_trained_on(tmp_path):
    made = make(tmp_path, each=40, groups=30)
    (tmp_path / "sounds").rename(tmp_path / "away")
    train_stream, val = streams(made, "data.val_fraction=0.05")
    assert len(val) == 8 and {clip.split for clip in val.clips} == {"train"}
    assert (
        not {clip.group for clip in train_stream.clips} & {clip.group for clip in val.clips} and len(train_stream) > 60
    )


def test_a_share_of_long_recordings_is_made_of_whole_recordings_in_all_shards(tmp_path):
    """Every shard has clips of every recording: without those of its recordings nothing is left to train on."""
    made = make(tmp_path, each=40, groups=10)
    manifest, config = read_manifest(made), DataConfig(val_fraction=0.1)
    as_files = training_splits(manifest, config)
    (tmp_path / "sounds").rename(tmp_path / "away")
    as_streams = streams(made, "data.val_fraction=0.1")
    for files, streamed in zip(as_files, as_streams, strict=True):
        assert sorted(clip.path for clip in files) == sorted(clip.path for clip in streamed.clips)
    train_stream, val = as_streams
    assert len(val) == 12 and len(train_stream) == 108 and len({clip.group for clip in val.clips}) == 1
    (loaded,) = val.load(items([list(range(len(val)))]), 1)
    assert all(isinstance(waveform, np.ndarray) for waveform in loaded)


def test_a_share_of_a_single_recording_is_refused(tmp_path):
    made = make(tmp_path, groups=1)
    (tmp_path / "sounds").rename(tmp_path / "away")
    with pytest.raises(AumError, match="is one group"):
        streams(made, "data.val_fraction=0.1")


def test_a_run_on_shards_is_reproducible_and_resumable(folder, tmp_path):
    class Stop(BaseException):
        pass

    def stop(text):
        if text.startswith("epoch   1/"):
            raise Stop

    said = []
    with one_thread():
        quietly(tiny(*PINNED), tmp_path / "a", folder, progress=False, say=said.append)
        quietly(tiny(*PINNED, "train.workers=3"), tmp_path / "b", folder, progress=False)
        with pytest.raises(Stop):
            quietly(tiny(*PINNED), tmp_path / "c", folder, say=stop, progress=False)
        quietly(tiny(*PINNED), tmp_path / "c", None, resume=True, progress=False)
    weights = [(tmp_path / name / "last" / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] == weights[2]
    assert "60 training and 12 validation clips" in said[0] and "streamed from" in said[0]


def test_evaluating_shards_is_evaluating_their_files(folder, tmp_path):
    with one_thread():
        quietly(tiny(*PINNED, "train.epochs=1"), tmp_path / "run", folder, progress=False)
        data = make(tmp_path)
        files = evaluate(tmp_path / "run", data, "val", tmp_path / "eval")
        (tmp_path / "sounds").rename(tmp_path / "away")
        streamed = evaluate(tmp_path / "run", data, "val", tmp_path / "eval")
    assert streamed.clips == files.clips and np.array_equal(streamed.targets, files.targets)
    np.testing.assert_allclose(streamed.scores, files.scores, atol=1e-6)  # other clips share a batch
    assert streamed.metrics.clips == 12
    with pytest.raises(AumError, match="no shards of 'test'; it has"):
        evaluate(tmp_path / "run", data, "test")


def test_over_http(folder, tmp_path, monkeypatch, aum):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "mine").symlink_to(folder)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/mine/shards/shards.json"
        arguments = [text for each in (*PINNED, "train.epochs=1") for text in ("--set", each)]
        from tiny import RECIPE

        result = aum("train", "--recipe", RECIPE, "--data", url, "--out", "run", *arguments)
        assert result.code == 0, result.err
        assert aum("train", "--recipe", RECIPE, "--data", "data/mine", "--out", "again", *arguments).code == 0
        assert re.search("clips +12 ", aum("eval", "run", "--data", url, "--split", "val").out)
        server.shutdown()
    with one_thread():
        quietly(tiny(*PINNED, "train.epochs=1"), tmp_path / "local", folder, progress=False)
    weights = {
        name: (tmp_path / name / "best" / "model.safetensors").read_bytes() for name in ("run", "again", "local")
    }
    assert weights["run"] == weights["again"]
    assert json.loads(Path("data/mine/shards/shards.json").read_text())["base"].endswith("/mine/shards")
