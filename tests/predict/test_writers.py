"""One rule for events, in every format that results can be written as."""

import csv
import io
import json
import re

import pytest

from aumcli.predict import writers
from aumcli.predict.events import Event
from aumcli.predict.page import write_page
from aumcli.predict.prediction import Prediction
from aumcli.predict.writers import TEXT, Format

HEADER = {"schema": 1, "sample_rate_hz": 8000}
SEVERAL = Prediction(
    "long.wav", 3.0, 5, (("high", 0.7), ("low", 0.2)), (Event(0.5, 1.5, "high", 0.9), Event(2.0, 3.0, "low", 0.6))
)
REACHES = Prediction("short.wav", 0.5, 1, (("high", 0.6), ("low", 0.3)), (Event(0.0, 0.5, "high", 0.6),))
BELOW = Prediction("below.wav", 0.5, 1, (("hiss", 0.4), ("low", 0.3)))
BOTH = Prediction(
    "both.wav", 0.5, 1, (("high", 0.9), ("low", 0.8)), (Event(0.0, 0.5, "high", 0.9), Event(0.0, 0.5, "low", 0.8))
)
SECOND = Prediction(
    "second.wav", 0.5, 1, (("hiss", 0.4), ("low", 0.3)), (Event(0.0, 0.5, "low", 0.3),)
)  # its threshold is lower
PREDICTIONS = (SEVERAL, REACHES, BELOW, BOTH, SECOND)
RECORDS = [each.to_dict() for each in PREDICTIONS]


def of_clips(clips):
    return [
        (clip["path"], event["start_s"], event["stop_s"], event["label"], event["score"])
        for clip in clips
        for event in clip["events"]
    ]


def of_rows(rows):
    return [
        (row["path"], row["start_s"], row["stop_s"], row["label"], row["score"])
        for row in rows
        if row["kind"] == "event"
    ]


def in_table(folder):
    found = []
    for line in "".join(TEXT[Format.TABLE](HEADER, RECORDS)).splitlines()[1:]:
        path, start, stop, label, score, *then = line.split()
        if start != "-":
            found.append((path, start, stop, label, score))
        marked = [(name[1:], value.rstrip(",")) for name, value in zip(then[::2], then[1::2]) if name.startswith("*")]
        found += [(path, 0.0, 0.5, name, value) for name, value in marked]  # the whole clip
    return found


def in_json(folder):
    return of_clips(json.loads("".join(TEXT[Format.JSON](HEADER, RECORDS)))["clips"])


def in_jsonl(folder):
    return of_clips(map(json.loads, TEXT[Format.JSONL](HEADER, RECORDS)))


def in_csv(folder):
    return of_rows(csv.DictReader(io.StringIO("".join(TEXT[Format.CSV](HEADER, RECORDS)))))


def in_parquet(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    writers.write(folder / "r.parquet", Format.PARQUET, HEADER, RECORDS)
    return of_rows(parquet.read_table(folder / "r.parquet").to_pylist())


def in_audacity(folder):
    lines = [
        (record["path"], line.split("\t")) for record in RECORDS for line in TEXT[Format.AUDACITY](HEADER, [record])
    ]
    return [(path, start, stop, *text.split()) for path, (start, stop, text) in lines]


def in_raven(folder):
    rows = csv.DictReader(io.StringIO("".join(TEXT[Format.RAVEN](HEADER, RECORDS))), delimiter="\t")
    return [
        (
            row["Begin Path"],
            row["File Offset (s)"],
            float(row["File Offset (s)"]) + float(row["End Time (s)"]) - float(row["Begin Time (s)"]),
            row["Label"],
            row["Score"],
        )
        for row in rows
    ]


def in_page(folder):
    write_page(folder / "r.html", HEADER, RECORDS, {})
    return of_clips(
        json.loads(re.search(r'id="data">(.*?)</script>', (folder / "r.html").read_text(), re.S)[1])["files"]
    )


@pytest.mark.parametrize("events_in", [in_table, in_json, in_jsonl, in_csv, in_parquet, in_audacity, in_raven, in_page])
def test_every_format_has_the_same_events(events_in, tmp_path):
    def rounded(events):
        return sorted(
            (path, round(float(start), 3), round(float(stop), 3), label, round(float(score), 3))
            for path, start, stop, label, score in events
        )

    expected = [
        (each.path, event.start_s, event.stop_s, event.label, event.score)
        for each in PREDICTIONS
        for event in each.events
    ]
    assert rounded(events_in(tmp_path)) == rounded(expected)


def test_a_clip_of_one_window_is_one_row_of_the_table():
    lines = [line.split() for line in "".join(TEXT[Format.TABLE](HEADER, RECORDS)).splitlines()[1:]]
    names = [line[0] for line in lines]
    assert [names.count(each.path) for each in PREDICTIONS] == [3, 1, 1, 1, 1]
    assert lines[3][:5] == ["short.wav", "0.0000", "0.5000", "high", "0.6000"]


def test_a_class_beyond_the_best_labels_is_not_lost_in_the_table():
    many = Prediction(
        "many.wav",
        0.5,
        1,
        (("high", 0.9),),
        tuple(Event(0.0, 0.5, name, score) for name, score in (("high", 0.9), ("low", 0.8))),
    )
    assert "*low 0.800" in "".join(TEXT[Format.TABLE](HEADER, [many.to_dict()]))


@pytest.fixture
def examples():
    """Label files as Raven and Audacity wrote them."""
    crowsetta = pytest.importorskip("crowsetta", reason="crowsetta is not installed")
    return lambda name: crowsetta.example(name, return_path=True).read_bytes()


def test_another_library_reads_our_label_files(tmp_path, examples):
    from crowsetta.formats.bbox import Raven
    from crowsetta.formats.seq import AudSeq

    writers.write(tmp_path / "r.txt", Format.RAVEN, HEADER, RECORDS)
    table = Raven.from_file(tmp_path / "r.txt", annot_col="Label").df
    offsets = [sum(each.duration_s for each in PREDICTIONS[:i]) for i in range(len(PREDICTIONS))]
    events = [(offset, event) for offset, each in zip(offsets, PREDICTIONS) for event in each.events]
    assert table["annotation"].tolist() == [event.label for _, event in events]
    assert table["begin_time_s"].tolist() == [offset + event.start_s for offset, event in events]
    assert table["end_time_s"].tolist() == [offset + event.stop_s for offset, event in events]
    assert {*table["low_freq_hz"]} == {0} and {*table["high_freq_hz"]} == {4000}
    writers.write(tmp_path / "a.txt", Format.AUDACITY, HEADER, RECORDS[:1])
    track = AudSeq.from_file(tmp_path / "a.txt")
    assert track.labels.tolist() == ["high 0.900", "low 0.600"]
    assert track.start_times.tolist() == [0.5, 2.0] and track.end_times.tolist() == [1.5, 3.0]


def test_label_files_are_as_the_programs_write_them(examples):
    """The same columns, separators and forms of numbers; programs on Windows end lines with \\r\\n, and read both."""
    raven = re.sub(rb"\d+", b"9", examples("Recording1")).replace(b"\r\n", b"\n").split(b"\n")
    ours = re.sub(r"\d+", "9", "".join(TEXT[Format.RAVEN](HEADER, RECORDS))).encode().split(b"\n")
    columns = len(b"9\tSpectrogram 9\t9\t9.9\t9.9\t9.9\t9.9".split(b"\t"))
    assert {tuple(line.split(b"\t")[:columns]) for line in raven} == {
        tuple(line.split(b"\t")[:columns]) for line in ours
    }
    track = re.sub(rb"\d+", b"9", re.sub(rb"\t[^\t]+\n", b"\tlabel\n", examples("marron1")))
    ours = re.sub(r"\d+", "9", re.sub(r"\t[^\t]+\n", "\tlabel\n", "".join(TEXT[Format.AUDACITY](HEADER, RECORDS))))
    assert {*track.splitlines(keepends=True)} == {*ours.encode().splitlines(keepends=True)}
