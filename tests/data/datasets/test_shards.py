"""Shards: what is read from them is what the files hold, to the bit; what is damaged is noticed."""

import functools
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aumcli.data.datasets import shards
from aumcli.data.datasets.shards import read_index, read_shard
from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import read_manifest
from aumcli.errors import AumError
from aumcli.prepare import prepare
from aumcli.utils.files import file_sha256

pytest.importorskip("webdataset")
KINDS = {
    "pcm16.wav": dict(subtype="PCM_16"),
    "stereo.flac": dict(subtype="PCM_16"),
    "pcm24.wav": dict(subtype="PCM_24"),
    "float.wav": dict(subtype="FLOAT"),
    "some.ogg": {},
    "some.mp3": {},
    "eight.wav": dict(subtype="PCM_U8"),
}


def corpus(root, rows, **how):
    """Sounds of every kind, and a prepared corpus of `rows` with shards."""
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for name, options in KINDS.items():
        samples = 0.3 * rng.standard_normal((24000, 2) if "stereo" in name else 24000)
        soundfile.write(root / name, np.clip(samples, -0.99, 0.99), 24000, **options)
    (root / "t.csv").write_text("path,start,stop,label,split,speaker\n" + "\n".join(rows) + "\n")
    prepare("csv", root / "out", source=root / "t.csv", shards=True, workers=2, **how)
    return root / "out"


def everything(out):
    """Clips of all shards by key, with what was read."""
    index = read_index(out)
    return [item for shard in index.shards for item in read_shard(index.url(shard), sha256=shard.sha256)]


def test_every_clip_comes_back_to_the_bit(tmp_path):
    rows = [
        f"{name},{times},a;b,{split},ann"
        for name in KINDS
        for times, split in ((",", "train"), ("0.25,0.75", "train"), ("0.5,", "val"))
    ]
    out = corpus(tmp_path / "x", rows)
    items = everything(out)
    assert len(items) == 21 and read_index(out).splits == {"train": 14, "val": 7}
    manifest = read_manifest(out)
    for clip, waveform, rate_hz in items:
        assert clip in manifest.clips and waveform.dtype == np.float32
        expected, expected_hz = load_audio(clip.path, None, clip.start_s, clip.stop_s)
        assert rate_hz == expected_hz == 24000
        np.testing.assert_array_equal(waveform, expected)
    suffixes = {}
    for path in (out / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar.getnames():
                if not member.endswith("json"):
                    clip = manifest.clips[int(member[:9])]
                    suffixes[clip.path.name, clip.start_s is None] = member.partition(".")[2]
    assert suffixes == {(name, True): name.partition(".")[2] for name in KINDS} | {
        (name, False): "wav" if name in ("float.wav", "some.ogg", "some.mp3") else "flac" for name in KINDS
    }


def test_the_layout_is_the_documented_one(tmp_path):
    out = corpus(
        tmp_path / "x",
        [
            f"pcm16.wav,{n / 20},{n / 20 + 0.05},{'ab'[n % 2]},{'train' if n < 15 else 'test'},s{n % 3}"
            for n in range(18)
        ],
    )
    index = json.loads((out / "shards" / "shards.json").read_text())
    assert index["format"] == 1 and index["labels"] == ["a", "b"] and index["splits"] == {"train": 15, "test": 3}
    assert index["sample_rates_hz"] == {"24000": 18} and [entry["name"] for entry in index["shards"]] == [
        "train-000000.tar",
        "test-000000.tar",
    ]
    assert index["manifest_sha256"] == file_sha256(out / "manifest.csv")
    for entry in index["shards"]:
        path = out / "shards" / entry["name"]
        assert (path.stat().st_size, file_sha256(path)) == (entry["bytes"], entry["sha256"])
    with tarfile.open(out / "shards" / "train-000000.tar") as tar:
        names = tar.getnames()
        about = json.load(tar.extractfile(names[1]))
    keys = [int(name[:9]) for name in names[::2]]
    assert sorted(keys) == list(range(15)) and keys != sorted(keys)  # shuffled, once and for all
    assert names[0] == f"{keys[0]:09d}.flac" and names[1] == f"{keys[0]:09d}.json"
    assert set(about) == {"labels", "split", "group", "path", "start_s", "stop_s", "sample_rate_hz", "sha256"}
    before = {path.name: path.read_bytes() for path in (out / "shards").iterdir()}
    prepare("csv", out, source=tmp_path / "x" / "t.csv", shards=True, workers=1)
    assert {path.name: path.read_bytes() for path in (out / "shards").iterdir()} == before  # whatever the workers
    prepare("csv", out, source=tmp_path / "x" / "t.csv", shards=True, seed=1)
    assert (out / "shards" / "train-000000.tar").read_bytes() != before["train-000000.tar"]


def test_webdataset_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    out = corpus(tmp_path / "x", ["pcm16.wav,,,a,train,x", "float.wav,0.1,0.4,b,train,y", "stereo.flac,,,b,train,y"])
    samples = list(webdataset.WebDataset(str(out / "shards" / "train-000000.tar"), shardshuffle=False))
    assert {sample["__key__"] for sample in samples} == {"000000000", "000000001", "000000002"}
    assert all(json.loads(sample["json"])["labels"] in (["a"], ["b"]) for sample in samples)


def test_many_small_shards_and_a_start(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_CLIPS", 4)
    out = corpus(tmp_path / "x", [f"pcm24.wav,{n / 20},{n / 20 + 0.05},a,train,s{n}" for n in range(18)])
    index = read_index(out / "shards" / "shards.json")
    assert [shard.clips for shard in index.shards] == [4, 4, 4, 4, 2]
    groups = [clip.group for clip, *_ in everything(out)]
    assert sorted(groups) == sorted(f"s{n}" for n in range(18))
    first = index.url(index.shards[0])
    assert [clip.group for clip, *_ in read_shard(first, start=3)] == groups[3:4] and list(
        read_shard(first, start=9)
    ) == []
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    (tmp_path / "x" / "t.csv").write_text("path,label,split\npcm16.wav,a,train\npcm24.wav,a,train\n")
    prepare("csv", out, source=tmp_path / "x" / "t.csv", shards=True)
    assert sorted(path.name for path in (out / "shards").iterdir()) == [
        "shards.json",
        "train-000000.tar",
        "train-000001.tar",
    ]


def test_an_interrupted_call_keeps_finished_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_CLIPS", 4)
    root = tmp_path / "x"
    rows = [f"pcm24.wav,{n / 20},{n / 20 + 0.05},a,train,s{n}" for n in range(10)]
    encoded, encode = [], shards.encode_clip

    def stopping(clip):
        encoded.append(clip)
        if len(encoded) > 6:
            raise KeyboardInterrupt
        return encode(clip)

    monkeypatch.setattr(shards, "encode_clip", stopping)
    with pytest.raises(KeyboardInterrupt):
        corpus(root, rows)
    out = root / "out"
    assert [path.name for path in (out / "shards").iterdir()] == ["train-000000.tar"] and (
        out / ".prepare.journal"
    ).exists()
    encoded.clear()
    monkeypatch.setattr(shards, "encode_clip", lambda clip: encoded.append(clip) or encode(clip))
    prepare("csv", out, source=root / "t.csv", shards=True)
    assert len(encoded) == 6 and len(everything(out)) == 10 and not (out / ".prepare.journal").exists()


def test_damage_is_noticed(tmp_path):
    out = corpus(tmp_path / "x", ["pcm16.wav,,,a,train,x", "pcm24.wav,,,a,train,x"])
    index = read_index(out)
    path = Path(index.url(index.shards[0]))
    data = path.read_bytes()
    for name, content, words in (
        ("flipped", data[:30_000] + bytes([data[30_000] ^ 1]) + data[30_001:], "SHA-256"),
        ("cut", data[:60_000], "damaged"),
        ("short", data[:-512], "in the index"),
        ("text", b"hello", "damaged"),
        ("header", data[:100] + b"zzz" + data[103:], "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(AumError, match=words) as caught:
            list(read_shard(path, sha256=index.shards[0].sha256))
        assert caught.value.fix and "train-000000.tar" in caught.value.problem, name


def test_tar_files_that_are_no_shards(tmp_path):
    def tar(members, kind=tarfile.REGTYPE):
        with tarfile.open(tmp_path / "x.tar", "w") as packed:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
                packed.addfile(info, io.BytesIO(content))
        return tmp_path / "x.tar"

    for members in (
        [("1.json", b"{}")],
        [("1.json", b"{}"), ("2.wav", b"")],
        [("1.flac", b""), ("1.wav", b"")],
        [("1.json", b"{}"), ("1.wav", b"")],
        [("1.json", b"["), ("1.wav", b"")],
    ):
        with pytest.raises(AumError, match="damaged"):
            list(read_shard(tar(members)))
    with pytest.raises(AumError, match="is not a file"):
        list(read_shard(tar([("1.json", b"")], tarfile.SYMTYPE)))
    with pytest.raises(AumError, match="can't read"):
        list(read_shard(tmp_path / "no.tar"))
    for text in ("{}", "x", '{"labels": [], "splits": {}, "shards": [{"a": 1}], "manifest_sha256": ""}'):
        (tmp_path / "shards.json").write_text(text)
        with pytest.raises(AumError, match="not an index of shards"):
            read_index(tmp_path / "shards.json")


def test_shards_over_http(tmp_path, monkeypatch):
    out = corpus(tmp_path / "x", ["pcm16.wav,,,a,train,x", "some.mp3,,,b,val,y"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=out)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = everything(f"http://127.0.0.1:{server.server_port}/shards")
        with pytest.raises(AumError, match="can't read .*nothing.tar"):
            list(read_shard(f"http://127.0.0.1:{server.server_port}/nothing.tar"))
        server.shutdown()
    local = everything(out)
    assert [clip for clip, *_ in remote] == [clip for clip, *_ in local]
    assert all((a[1] == b[1]).all() for a, b in zip(remote, local))
