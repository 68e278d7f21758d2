"""Annotated recordings: label files as programs write them, and the windows that they become."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, sound
from training import problem

from aumcli.data.manifest import read_events, read_manifest
from aumcli.data.sources.annotations import Event, Window, Windows
from aumcli.prepare import prepare

pytest_plugins = ["aum_fixtures"]
RATE_HZ = 8000
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"


def record(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.01 * np.random.default_rng(len(path.name)).standard_normal(round(seconds * RATE_HZ))
    soundfile.write(path, noise.astype(np.float32), RATE_HZ)
    return path


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def windows_of(folder, out, *settings, **options):
    """Prepare, and give for each recording's name its windows: start, labels; and the report."""
    report = prepare("annotations", out, source=folder, settings=settings, **options)
    found = {}
    for clip in read_manifest(out).clips:
        found.setdefault(clip.path.name, []).append((clip.start_s, ";".join(clip.labels), clip.split))
    return found, report


def spans(found, name):
    return sorted((start, labels) for start, labels, _ in found[name])


def test_windows_and_what_is_in_them():
    windows = Windows(3.0, 3.0, 0.5)
    assert windows.starts(10.0).tolist() == [0, 3, 6, 7] and windows.starts(9.0).tolist() == [0, 3, 6]
    assert windows.starts(2.0).tolist() == [0] and Windows(3.0, 1.0, 0.5).starts(4.5).tolist() == [0, 1, 1.5]
    events = [Event(2.0, 3.5, ("owl",)), Event(3.5, 11.0, ("rain",)), Event(8.9, 9.9, ("fox",))]
    assert windows.labelled(events, 12.0) == [
        Window(0.0, {"owl"}),  # two thirds of it
        Window(3.0, {"rain"}, partial=True),  # a third of the owl
        Window(6.0, {"rain"}, partial=True),  # a tenth of the fox
        Window(9.0, {"rain", "fox"}),
    ]
    assert windows.labelled([Event(2.0, 12.0, (), doubtful=True)], 12.0)[0] == Window(0.0, partial=True)
    assert windows.labelled([Event(0.0, 3.0, ())], 6.0) == [Window(0.0, rejected=True), Window(3.0)]
    assert windows.labelled([Event(0.0, 6.0, ())], 6.0) == [Window(0.0), Window(3.0)]  # it was listened to
    assert windows.labelled([Event(0.0, 3.0, (), others=True)], 3.0) == [Window(0.0, others=True)]


def test_label_tracks_selection_tables_and_csv(tmp_path):
    folder = tmp_path / "night"
    record(folder / "a.wav", 12)
    write(folder / "a.txt", "1.000000\t2.500000\towl\n\\\t500.0\t900.0\n2,2\t2,6\tfox\r\n10\t11\towl\n")  # Audacity
    record(folder / "site" / "b.flac", 9)
    row = "3.0\t4.0\t100\t200\towl\n"  # Raven has a row for each view
    write(folder / "site" / "b.Table.1.selections.txt", RAVEN + f"1\tWaveform 1\t1\t{row}1\tSpectrogram 1\t1\t{row}")
    record(folder / "c.wav", 2)
    write(folder / "c.csv", "onset;offset;label\n0,2;1,5;B\u00e4r\n", "utf-8-sig")
    found, report = windows_of(folder, tmp_path / "data", "empty=9")
    assert spans(found, "a.wav") == [(0.0, "fox;owl"), (3.0, ""), (6.0, ""), (9.0, "owl")]
    assert spans(found, "b.flac") == [(0.0, ""), (3.0, "owl"), (6.0, "")]
    assert found["c.wav"] == [(None, "B\u00e4r", found["c.wav"][0][2])]
    assert all(len({split for *_, split in each}) == 1 for each in found.values())
    assert {split for each in found.values() for *_, split in each} == {"train", "val", "test"}
    assert not report.skipped and not report.warnings[1:]
    assert any("5 labelled stretches in 3 recordings" in note for note in report.notes), report.notes


def test_one_table_for_all(tmp_path):
    folder = tmp_path / "sounds"
    for name in ("a.wav", "b.wav", "c.wav"):
        record(folder / name, 6)
    rows = "".join(
        f"{i}\tD:\\rec\\{name}\t{start}\t{start + 1}\towl\n"
        for i, (name, start) in enumerate([("a.wav", 1), ("b.wav", 4)])
    )
    table = write(tmp_path / "all.txt", "Selection\tBegin File\tBegin Time (s)\tEnd Time (s)\tCall\n" + rows)
    found, report = windows_of(folder, tmp_path / "data", "label=Call", annotations=table, split="50/50/0")
    assert spans(found, "a.wav")[0] == (0.0, "owl") and (3.0, "owl") in spans(found, "b.wav") and "c.wav" not in found
    assert any("1 recording without labels" in each and "c.wav" in each for each in report.warnings)


def test_what_has_no_label(tmp_path):
    folder = tmp_path / "night"
    for name in ("a", "b", "quiet"):
        record(folder / f"{name}.wav", 30)
    write(folder / "a.txt", "0\t3\towl\n6\t9\tcar\n")
    write(folder / "b.txt", "3\t6\towl\n")
    write(folder / "quiet.txt", "")
    options = {"split": "100/0/0"}
    found, _ = windows_of(folder, tmp_path / "1", **options)
    counts = [labels for each in found.values() for _, labels, _ in each]
    assert counts.count("") == 3 and len(counts) == 6  # as many as have a label
    again, _ = windows_of(folder, tmp_path / "2", **options)
    assert again == found
    found, _ = windows_of(folder, tmp_path / "3", "empty=100", **options)
    assert len(found["quiet.wav"]) == 10 and sum(map(len, found.values())) == 30
    found, _ = windows_of(folder, tmp_path / "4", "unlabelled=unknown", **options)
    assert sorted(spans(found, "a.wav")) == [(0.0, "owl"), (6.0, "car")] and "quiet.wav" not in found
    found, _ = windows_of(folder, tmp_path / "5", "classes=owl", "empty=100", **options)
    assert (6.0, "") in spans(found, "a.wav")
    found, _ = windows_of(folder, tmp_path / "6", split="0/0/100")
    assert sum(map(len, found.values())) == 30  # a test has all that there is


def test_wrong_rows_are_named_and_the_rest_is_done(tmp_path):
    folder = tmp_path / "night"
    record(folder / "a.wav", 20)
    record(folder / "b.wav", 20)
    write(
        folder / "a.txt",
        "5\t5\tpoint\n9\t7\treversed\n-2\t1\tnegative\n18\t70\tlong\n90\t91\tlate\n1\t2\towl\n1.5\t2\towl\n7\t8\t\n",
    )
    write(folder / "gone.txt", "1\t2\towl\n")
    record(folder / "c.wav", 6)
    write(folder / "c.csv", "start,stop,label\n1,2,B\u00e4r\n", "latin-1")
    write(folder / "list.csv", "file,start,stop,label\nb.wav,1,2,owl\nlost.wav,1,2,owl\n")
    found, report = windows_of(folder, tmp_path / "data", "empty=100", split="100/0/0")
    said = [(each.path, each.reason) for each in report.skipped]
    for number, words in (
        (1, "a point in time"),
        (2, "not a time interval"),
        (3, "-2 s"),
        (4, "ends at 20 s"),
        (5, "ends at 20 s"),
    ):
        assert any(
            "a.txt" in path + reason and f"row {number}" in reason and words in reason for path, reason in said
        ), (number, said)
    assert any("stretches in doubt" in note for note in report.notes)
    assert any("gone.txt" in path and "no recording of its name" in reason for path, reason in said)
    assert any("lost.wav" in path for path, _ in said) and len(said) == 8
    assert any("c.csv" in path and "UTF-8" in reason for path, reason in said) and "c.wav" not in found
    clear = [(0.0, "owl"), (9.0, ""), (12.0, ""), (15.0, "")]
    assert spans(found, "a.wav") == clear  # nothing is claimed of stretches whose rows are wrong or have no label
    assert (0.0, "owl") in spans(found, "b.wav")


def test_the_same_name_at_several_sites(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for site, label in (("siteA", "owl"), ("siteB", "fox"), ("siteC", "")):
        record(tmp_path / "rec" / site / "night.wav", 6)
        write(tmp_path / "labels" / site / "night.txt", f"1\t2\t{label}\n" if label else RAVEN)
        write(tmp_path / "rec" / site / "night.txt", f"1\t2\t{label}\n" if label else RAVEN)
    for annotations in (None, Path("labels")):
        prepare("annotations", "data", source=Path("rec"), annotations=annotations, split="100/0/0")
        found = {(clip.path.parent.name, *clip.labels) for clip in read_manifest("data").clips if clip.labels}
        assert found == {("siteA", "owl"), ("siteB", "fox")}
        assert "siteC" in {clip.path.parent.name for clip in read_events(read_manifest("data"))}
    shutil.move("labels/siteA/night.txt", "labels/night.txt")
    report = prepare("annotations", "data", source=Path("rec"), annotations=Path("labels"))
    assert any("could be of" in each.reason for each in report.skipped)


def test_the_split_doesnt_depend_on_the_place(tmp_path):
    splits = []
    for place in ("x", "y/z"):
        for i in range(8):
            record(tmp_path / place / f"{i}.wav", 3)
            write(tmp_path / place / f"{i}.txt", "1\t2\towl\n")
        found, _ = windows_of(tmp_path / place, tmp_path / place / "data")
        splits.append({name: each[0][2] for name, each in found.items()})
    assert splits[0] == splits[1] and len({*splits[0].values()}) == 3
    shutil.move(tmp_path / "x", tmp_path / "moved")  # the recordings lie beside what was prepared
    events = read_events(read_manifest(tmp_path / "moved" / "data"))
    assert len(events) == 16


def test_folds_and_groups(tmp_path):
    rows = "".join(f"{i}.wav,1,2,owl,{1 + i % 3}\n" for i in range(6))
    for i in range(6):
        record(tmp_path / "rec" / f"{i}.wav", 3)
    write(tmp_path / "rec" / "all.csv", "file,start,stop,label,fold\n" + rows)
    found, _ = windows_of(tmp_path / "rec", tmp_path / "data")
    assert [found[f"{i}.wav"][0][2] for i in range(6)] == ["train", "val", "test"] * 2


@pytest.mark.parametrize("kind", ["audacity", "raven"])
def test_what_predict_finds_comes_back(aum, trained, tmp_path, kind):
    for i, (name, hz) in enumerate(CLASSES.items()):
        sound(tmp_path / "rec" / f"{name}.wav", hz, seconds=4, seed=i)
    labels = tmp_path / ("labels/" if kind == "audacity" else "all.txt")
    call = ("predict", tmp_path / "rec", "--model", trained, "--threshold", "0.5", "--format", kind)
    assert aum(*call, "--out", f"{labels}{'/' if kind == 'audacity' else ''}").code == 0
    found, report = windows_of(tmp_path / "rec", tmp_path / "data", "window=1", annotations=labels, split="100/0/0")
    assert {name for each in found.values() for _, label, _ in each for name in label.split(";") if name} == set(
        CLASSES
    )
    assert all(f"{name}.wav" in found and (0.0, name) in spans(found, f"{name}.wav") for name in CLASSES), found
    assert not report.skipped


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("window=0", "window"), ("window=x", "window"), ("hop=4", "leave gaps"), ("inside=0", "inside"),
        ("inside=1.5", "inside"), ("empty=-1", "empty"), ("unlabelled=maybe", "nothing or unknown"),
        ("classes=owls", "no label is 'owls'"), ("windows=3", "no setting windows"),
        ("label=Nobody", "no labelled stretch"),
    ],
)  # fmt: skip
def test_wrong_settings(tmp_path, setting, words):
    record(tmp_path / "night" / "a.wav", 6)
    write(tmp_path / "night" / "a.csv", "start,stop,label\n1,2,owl\n")
    error = problem(prepare, "annotations", tmp_path / "data", source=tmp_path / "night", settings=[setting])
    assert words in error.problem and not (tmp_path / "data").exists()


def test_nothing_to_read(tmp_path):
    record(tmp_path / "night" / "a.wav", 6)
    assert (
        "no tables of labels" in problem(prepare, "annotations", tmp_path / "data", source=tmp_path / "night").problem
    )
    write(tmp_path / "night" / "a.txt", "")
    assert (
        "no labelled stretch" in problem(prepare, "annotations", tmp_path / "data", source=tmp_path / "night").problem
    )
    assert "which recordings" in problem(prepare, "annotations", tmp_path / "data").problem


def band_of(folder, out, *settings):
    """Prepare, and give the band of the events, where they are all of training, and the report."""
    report = prepare("annotations", out, source=folder, settings=settings, split="100/0/0")
    assert read_manifest(out).band_hz == (report.band_hz and tuple(report.band_hz))
    return report.band_hz, report


def test_frequencies_are_the_band(tmp_path):
    folder = tmp_path / "night"
    for name in "abcd":
        record(folder / f"{name}.wav", 12)
    tracks = "1\t2.5\towl 0.900\n\\\t500.0\t900,5\n4\t5\tfox\n\\\t-1.000000\t700.0\n7\t8\towl\n\\\t600\t800\n"
    write(folder / "a.txt", tracks)
    write(folder / "b.selections.txt", RAVEN + "1\tWaveform 1\t1\t3.0\t4.0\t0.0\t4000.0\towl\n")
    columns = "onset,offset,label,Low Freq (kHz),High Freq (kHz)\n"
    write(folder / "c.csv", columns + "1,2,fox,0.25,0.8\n3,4,fox,0.3,0.7\n5,6,owl,0.9,0.7\n8,9,fox\n")
    band_hz, report = band_of(folder, tmp_path / "data")
    assert band_hz == (250.0, 900.5)
    assert "4 of 8 training events with frequencies: 250 to 900.5 Hz" in " ".join(report.notes)
    [warning] = [each for each in report.warnings if each.startswith("frequencies")]
    assert "a.txt: row 3 (-1.000000 to 700.0)" in warning and "c.csv: row 4" in warning
    assert sum(bool(clip.labels) for clip in read_manifest(tmp_path / "data").clips) == 7  # labels count nevertheless
    assert not report.skipped
    assert band_of(folder, tmp_path / "data", "classes=owl")[0] == (500.0, 900.5)
    band_hz, report = band_of(folder, tmp_path / "data", "low=", "high=")  # columns, not Audacity's rows
    assert band_hz is None and "2 of 8 training events with frequencies, too few of fox" in " ".join(report.notes)


@pytest.mark.parametrize("boxed, known", [(9, False), (10, True)])
def test_ten_boxes_of_a_class_are_enough(tmp_path, boxed, known):
    folder = tmp_path / "night"
    record(folder / "a.wav", 100)
    rows = [f"{i}\t{i + 0.5}\towl\n" + ("\\\t500\t900\n" if i < boxed else "") for i in range(60)]  # reviewed: no boxes
    write(folder / "a.txt", "".join(rows))
    assert (band_of(folder, tmp_path / "data")[0] is not None) is known


def test_frequencies_in_an_unknown_unit_are_not_used(tmp_path):
    folder = tmp_path / "night"
    record(folder / "a.wav", 12)
    write(folder / "a.csv", "onset,offset,label,low_freq,high_freq\n1,2,bat,31,52.5\n")
    band_hz, report = band_of(folder, tmp_path / "data")
    assert band_hz is None and any("low_freq_khz" in each for each in report.warnings)
    write(folder / "a.csv", "onset,offset,label,min_f_khz,max_f_khz\n1,2,bat,0.031,0.0525\n")  # as is proposed
    assert band_of(folder, tmp_path / "data")[0] == (31, 52.5)
    write(folder / "a.csv", "onset,offset,label,low_freq,high_freq\n1,2,bat,1031,2052.5\n3,4,,,\n")
    assert band_of(folder, tmp_path / "data")[0] == (1031, 2052.5)


def test_a_row_without_all_values_leaves_its_recording_in_doubt(tmp_path):
    folder = tmp_path / "night"
    record(folder / "a.wav", 12)
    record(folder / "b.wav", 12)
    rows = "a.wav,1,2,owl\nb.wav,7\nb.wav,1,2,owl\n"
    write(folder / "all.csv", "file,start,stop,label\n" + rows)
    found, report = windows_of(folder, tmp_path / "data", "empty=9", split="100/0/0")
    assert spans(found, "b.wav") == [(0.0, "owl")] and len(spans(found, "a.wav")) == 4
    assert "2 values for 4 columns" in report.skipped[0].reason


def test_windows_much_longer_than_events_are_said(tmp_path):
    folder = tmp_path / "night"
    record(folder / "a.wav", 12)
    write(folder / "a.txt", "1\t1.01\tbat\n2\t2.008\tbat\n")
    report = windows_of(folder, tmp_path / "data")[1]
    assert any("--set window=0.2" in note for note in report.notes)
    assert not any("--set window" in note for note in windows_of(folder, tmp_path / "data", "window=0.2")[1].notes)


def test_one_box_that_is_too_large_does_not_decide(tmp_path):
    folder = tmp_path / "night"
    record(folder / "a.wav", 100)
    rows = [f"{i}\tSpectrogram 1\t1\t{i}\t{i + 0.5}\t{1000 + i}\t{2000 + i}\towl\n" for i in range(60)]
    rows += ["61\tSpectrogram 1\t1\t70\t71\t10\t3999\towl\n", "62\tSpectrogram 1\t1\t80\t81\t300\t400\tfox\n"]
    write(folder / "a.Table.1.selections.txt", RAVEN + "".join(rows))
    low_hz, high_hz = band_of(folder, tmp_path / "data")[0]
    assert low_hz == 300 and 2050 < high_hz < 2060
    write(folder / "a.Table.1.selections.txt", RAVEN + "".join(rows[40:61]))  # a twentieth of 21 is one, too
    assert band_of(folder, tmp_path / "data")[0] == (1040, 2059)


def test_only_recordings_that_are_trained_on_tell_the_band(tmp_path):
    folder = tmp_path / "night"
    for i in range(12):
        record(folder / f"{i}.wav", 6)
        write(folder / f"{i}.txt", f"1\t2\towl\n\\\t{100 + i}\t{1000 + i}\n")
    prepare("annotations", tmp_path / "data", source=folder)
    manifest = read_manifest(tmp_path / "data")
    train = [int(clip.path.stem) for clip in manifest.split("train")]
    assert len(set(train)) < 12 and manifest.band_hz == (100 + min(train), 1000 + max(train))


@pytest.mark.parametrize("kind", ["Raven", "AudSeq", "AudBBox"])
def test_tables_as_programs_wrote_them(tmp_path, kind):
    """Raven's, Audacity's, and Audacity's with frequencies: the labels and times that another library reads."""
    crowsetta = pytest.importorskip("crowsetta", reason="crowsetta is not installed")
    examples = Path(crowsetta.__file__).parent / "examples"
    pattern, of = {
        "Raven": ("*.selections.txt", crowsetta.formats.bbox),
        "AudSeq": ("*.audacity.txt", crowsetta.formats.seq),
        "AudBBox": ("spinetail.txt", crowsetta.formats.bbox),
    }[kind]
    [source] = examples.glob(pattern)
    read = getattr(of, kind).from_file(source, **({"annot_col": "Species"} if kind == "Raven" else {}))
    boxes = [] if kind == "AudSeq" else [(box.low_freq, box.high_freq) for box in read.to_bbox()]
    if boxes:
        events = [(box.onset, box.offset, box.label) for box in read.to_bbox()]
    else:
        events = [*zip(read.start_times.tolist(), read.end_times.tolist(), read.labels.tolist())]
    folder = tmp_path / "night"
    record(folder / f"{source.stem.partition('.')[0]}.wav", max(stop for _, stop, _ in events) + 1)
    shutil.copy(source, folder)
    report = prepare("annotations", tmp_path / "data", source=folder, split="100/0/0")
    assert not report.skipped
    stretches = [each for each in read_events(read_manifest(tmp_path / "data")) if each.start_s is not None]
    ours = sorted((each.start_s, each.stop_s, *each.labels) for each in stretches)
    assert [(label,) for *_, label in ours] == [(label,) for *_, label in sorted(events)]
    assert np.allclose([each[:2] for each in ours], [each[:2] for each in sorted(events)], atol=1e-6)
    assert report.band_hz == (pytest.approx((np.min(boxes), np.max(boxes)), abs=1e-2) if boxes else None)


def test_rejected_events_and_other_classes_are_kept_first(tmp_path):
    folder = tmp_path / "night"
    record(folder / "a.wav", 90)
    nothing = "".join(f"{3 * i}\t{3 * i + 2}\t(nothing)\n" for i in range(2, 6))
    write(folder / "a.txt", f"1\t2\towl\n{nothing}31\t32\tfox\n4\t5\towl\n")
    found = windows_of(folder, tmp_path / "data", split="100/0/0")[0]
    empty = [start for start, labels in spans(found, "a.wav") if not labels]
    assert empty == [6, 9, 12, 15]  # more than labelled ones
    found = windows_of(folder, tmp_path / "data", "unlabelled=unknown", "classes=owl", split="100/0/0")[0]
    assert [start for start, labels in spans(found, "a.wav") if not labels] == [6, 9, 12, 15]
    write(folder / "a.txt", "1\t2\towl\n31\t32\tfox\n")
    found = windows_of(folder, tmp_path / "data", "classes=owl", split="100/0/0")[0]
    assert [start for start, labels in spans(found, "a.wav") if not labels] == [30]
