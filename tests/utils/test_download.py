"""Downloads that break off, are changed or don't fit; archives that attack."""

import hashlib
import os
import tarfile
from collections import namedtuple

import pytest
from archives import tar_with, zip_with

from aumcli.errors import AumError
from aumcli.utils import download as fetch
from aumcli.utils.download import check_space, download, unpack


def test_download_continues_a_part(server, tmp_path):
    url, content, asked = server
    path = tmp_path / "new" / "file"
    with pytest.raises(AumError, match="broke"):
        download(url + "/broken", path)
    assert not path.exists() and path.with_name("file.part").stat().st_size == 400_000
    download(url + "/good", path)
    assert asked == [None, "bytes=400000-"] and path.read_bytes() == content
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_download_starts_again_where_ranges_are_unknown(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    download(server[0] + "/plain", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server[1]


@pytest.mark.parametrize("url", ["/missing", "nowhere"])
def test_download_fails_with_advice(server, tmp_path, url):
    url = server[0] + url if url == "/missing" else "http://127.0.0.1:1/x"
    with pytest.raises(AumError) as caught:
        download(url, tmp_path / "file")
    assert url in caught.value.problem and "--source" in caught.value.fix and caught.value.exit_code == 1


def test_download_is_verified(server, tmp_path):
    url, content, asked = server
    sha256 = hashlib.sha256(content).hexdigest()
    download(url + "/good", tmp_path / "file", len(content), sha256)
    assert (tmp_path / "file").read_bytes() == content
    for size, digest, words in (
        (len(content), "0" * 64, "another SHA-256"),
        (len(content) - 1, sha256, "were expected"),
        (len(content) + 1, sha256, "were expected"),
    ):
        with pytest.raises(AumError, match=words) as caught:
            download(url + "/good", tmp_path / "wrong", size, digest)
        assert caught.value.fix and caught.value.exit_code == 1
        assert [path.name for path in tmp_path.iterdir()] == ["file"]  # what is wrong doesn't stay


def test_download_that_is_complete_is_not_asked_for_again(server, tmp_path):
    url, content, asked = server
    (tmp_path / "file.part").write_bytes(content)
    download(url + "/good", tmp_path / "file", len(content), hashlib.sha256(content).hexdigest())
    assert asked == [] and (tmp_path / "file").read_bytes() == content


def test_space_is_looked_at_first(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: namedtuple("Usage", "total used free")(10, 9, 600_000))
    with pytest.raises(AumError, match="of disk.* free") as caught:
        download(server[0] + "/good", tmp_path / "new" / "file")
    assert "--out" in caught.value.fix and not (tmp_path / "new" / "file.part").exists()
    (tmp_path / "new" / "file.part").write_bytes(server[1][:200_000])  # 500,000 bytes are left to fetch
    download(server[0] + "/good", tmp_path / "new" / "file", len(server[1]))
    with pytest.raises(AumError, match="needs 0.0 GiB"):
        check_space(tmp_path / "not" / "yet", 600_001, "this")


def take(archive, out, limit=1000):
    unpack(archive, out, lambda name: name, limit, lambda name: True, lambda folder: None)


GOOD = {"a/1.wav": b"one", "a/2.wav": b"two"}


@pytest.mark.parametrize("make", [tar_with, zip_with])
def test_unpack(tmp_path, make):
    archive = make(tmp_path / "archive", GOOD)
    take(archive, tmp_path / "out")
    take(archive, tmp_path / "out")  # again, over the old one
    assert {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.wav")
    } == GOOD
    unpack(archive, tmp_path / "some", {"a/1.wav": "x/y.wav"}.get, 1000, lambda name: True, lambda folder: None)
    assert [path.name for path in (tmp_path / "some").rglob("*")] == ["x", "y.wav"]


@pytest.mark.parametrize("make", [tar_with, zip_with])
@pytest.mark.parametrize("name", ["../evil.wav", "a/../../evil.wav", "/evil-of-aumcli.wav", "..\\evil.wav"])
def test_no_member_is_written_outside(tmp_path, make, name):
    archive = make(tmp_path / "archive", {**GOOD, name: b"evil"})
    with pytest.raises(AumError, match="outside its folder") as caught:
        take(archive, tmp_path / "deep" / "out")
    assert caught.value.fix and not list(tmp_path.rglob("*.wav")) and not os.path.exists("/evil-of-aumcli.wav")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = tar_with(tmp_path / "archive", GOOD, {"a/link.wav": kind})
    with pytest.raises(AumError, match="a/link.wav is a link or a device"):
        take(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    unpack(
        archive,
        tmp_path / "out",
        lambda name: name if name == "a/1.wav" else None,
        1000,
        lambda name: True,
        lambda folder: None,
    )
    with pytest.raises(AumError, match="is a link"):
        take(zip_with(tmp_path / "zip", GOOD, link="a/3.wav"), tmp_path / "zipped")


@pytest.mark.parametrize("make", [tar_with, zip_with])
def test_bombs_are_refused_by_what_they_declare(tmp_path, make):
    archive = make(tmp_path / "archive", {**GOOD, "zeros": bytes(2_000_000)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(AumError, match="would unpack to more than"):
        take(archive, tmp_path / "out", limit=1_000_000)
    with pytest.raises(AumError, match="would unpack to more than"):  # also where nobody wants that member
        unpack(archive, tmp_path / "out", {"a/1.wav": "1.wav"}.get, 1_000_000, lambda name: True, lambda folder: None)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_damaged_archives_and_failed_checks_leave_nothing(tmp_path):
    cut = tar_with(tmp_path / "cut.tar.gz", {"a.wav": os.urandom(50_000)})
    cut.write_bytes(cut.read_bytes()[:30_000])
    (tmp_path / "text").write_text("no archive")
    changed = tar_with(tmp_path / "changed.tar.gz", {"a.wav": os.urandom(5_000)})
    data = bytearray(changed.read_bytes())
    data[-6] ^= 255  # gzip's checksum
    changed.write_bytes(data)
    for archive in (cut, tmp_path / "text", changed):
        with pytest.raises(AumError, match="damaged") as caught:
            take(archive, tmp_path / "out", 100_000)
        assert "\n" not in caught.value.problem

    def refuse(folder):
        raise AumError(f"{folder / 'a'} is not what it should be")

    with pytest.raises(AumError, match=f"{tmp_path}/good/a is not what"):  # and not where it was unpacked
        unpack(tar_with(tmp_path / "good", GOOD), tmp_path / "out", lambda name: name, 1000, lambda name: True, refuse)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_files_of_others_are_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(AumError, match="files from elsewhere: mine.txt"):
        unpack(
            tar_with(tmp_path / "good", GOOD),
            tmp_path / "out",
            lambda name: name,
            1000,
            "a".__eq__,
            lambda folder: None,
        )
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"
