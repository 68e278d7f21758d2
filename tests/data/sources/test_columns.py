"""Which columns serve as what: the headers that people, programs and corpora write."""

from pathlib import Path

import pytest

from aumcli.data.sources import SPLIT_NAMES
from aumcli.data.sources.column_names import looks_like_time, words
from aumcli.data.sources.columns import ROLES, find_columns, is_headerless
from aumcli.errors import AumError

TABLE = Path("t.csv")
SLICES = [["x.wav", "1", "2", "owl"], ["y.wav", "3", "4.5", "cat"]]


def chosen(header, rows=(), **settings):
    """Role -> the name of its column."""
    columns = find_columns(TABLE, header, rows, dict.fromkeys(ROLES) | settings, SPLIT_NAMES)
    return {role: columns.header[place] for role, place in columns.places.items()}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Begin Time (s)", "begin time s"),
        ("beginTime", "begin time"),
        ("begin_time_s", "begin time s"),
        ("Begin.Time..s.", "begin time s"),
        ("fsID", "fs id"),
        ("startTime", "start time"),
        ("EndTime", "end time"),
        ("starttime", "start time"),
        ("IN FILE", "in file"),
        ("stopms", "stop ms"),
        ("ebird_code", "ebird code"),
        ("t0", "t0"),
        ("", ""),
        ("Étiquette", "étiquette"),
    ],
)
def test_names_are_compared_by_their_words(name, expected):
    assert words(name) == expected.split()


@pytest.mark.parametrize(
    "begin, end",
    [
        ("start", "end"),
        ("start", "stop"),
        ("start_time", "end_time"),
        ("start_s", "stop_s"),
        ("onset", "offset"),
        ("Onset (s)", "Offset (s)"),
        ("Begin Time (s)", "End Time (s)"),
        ("Start (s)", "End (s)"),
        ("begin", "end"),
        ("t0", "t1"),
        ("t1", "t2"),
        ("tmin", "tmax"),
        ("from", "to"),
        ("start_time_seconds", "end_time_seconds"),
        ("event_onset", "event_offset"),
        ("startTime", "endTime"),
        ("start_ms", "end_ms"),
        ("Start (ms)", "End (ms)"),
        ("start_sample", "end_sample"),
        ("Beg File Samp (samples)", "End File Samp (samples)"),
        ("start_timestamp", "stop_timestamp"),
        ("segment_start", "segment_end"),
        ("time_start", "time_end"),
        ("range_onset", "range_offset"),
        ("start_offset", "end_offset"),
        ("starttime", "endtime"),
        ("Start.Time", "End.Time"),
        ("label_start", "label_end"),
        ("START", "END"),
    ],
)
def test_starts_and_stops(begin, end):
    assert chosen(["path", begin, end, "label"], SLICES) == {
        "path": "path",
        "label": "label",
        "start": begin,
        "stop": end,
    }


@pytest.mark.parametrize(
    "begin, length",
    [
        ("offset", "duration"),
        ("OFFSET", "DURATION"),
        ("onset", "duration"),
        ("start", "length"),
        ("start_sec", "length_sec"),
        ("start", "dur"),
        ("File Offset (s)", "duration"),
        ("begin", "Delta Time (s)"),
        ("onset_ms", "event_duration_ms"),
    ],
)
def test_starts_and_durations(begin, length):
    assert chosen(["path", begin, length, "label"], SLICES) == {
        "path": "path",
        "label": "label",
        "start": begin,
        "duration": length,
    }
    assert chosen(["path", length, "label"], SLICES) == {"path": "path", "label": "label"}  # of the file


@pytest.mark.parametrize(
    "header, expected",
    [
        ("path,label,start,end,duration", {"start": "start", "stop": "end"}),
        ("path,label,end", {"stop": "end"}),
        ("path,label,offset,end", {"start": "offset", "stop": "end"}),
        (
            "path,label,start_timestamp,start_sample,stop_timestamp,stop_sample",
            {"start": "start_timestamp", "stop": "stop_timestamp"},
        ),
        ("path,label,start_ms,start_s,end_s", {"start": "start_s", "stop": "end_s"}),
        ("path,label,duration,audio_duration", {}),
        ("path,label,start,audio_duration", {"start": "start"}),
        ("path,label,Begin Date,End File,Begin Clock Time", {}),
        ("path,label,sample_rate,start_end_ratio", {}),
    ],
)
def test_which_of_several_times(header, expected):
    header = header.split(",")
    assert chosen(header, [["1"] * len(header)]) == {"path": "path", "label": "label"} | expected


def test_ravens_times_count_through_all_files():
    header = [
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
        "Begin File",
        "End File",
        "Begin Path",
        "File Offset (s)",
        "Delta Time (s)",
        "Species",
    ]
    assert chosen(header) == {
        "path": "Begin Path",
        "label": "Species",
        "start": "File Offset (s)",
        "stop": "End Time (s)",
        "low": "Low Freq (Hz)",
        "high": "High Freq (Hz)",
        "origin": "Begin Time (s)",
    }
    text = find_columns(TABLE, header, [], dict.fromkeys(ROLES), SPLIT_NAMES).describe()
    assert (
        "stop = File Offset (s) + End Time (s) - Begin Time (s)" in text
        and "low = Low Freq (Hz), high = High Freq (Hz); not used: Selection, View, Channel, Begin File" in text
    )


@pytest.mark.parametrize(
    "header, expected",
    [
        # ESC-50, UrbanSound8K, FSD50K, FSDKaggle2018 and 2019, TAU scenes, DESED, AudioSet strong, BirdCLEF 2020 and
        # 2023, ff1010bird
        (
            "filename,fold,target,category,esc10,src_file,take",
            {"path": "filename", "label": "category", "fold": "fold"},
        ),
        (
            "slice_file_name,fsID,start,end,salience,fold,classID,class",
            {"path": "slice_file_name", "label": "class", "fold": "fold"},
        ),
        ("fname,labels,mids,split", {"path": "fname", "label": "labels", "split": "split"}),
        ("fname,label,manually_verified", {"path": "fname", "label": "label"}),
        ("fname,labels", {"path": "fname", "label": "labels"}),
        ("filename,scene_label,identifier,source_label", {"path": "filename", "label": "scene_label"}),
        (
            "filename,onset,offset,event_label",
            {"path": "filename", "label": "event_label", "start": "onset", "stop": "offset"},
        ),
        (
            "segment_id,start_time_seconds,end_time_seconds,label",
            {"path": "segment_id", "label": "label", "start": "start_time_seconds", "stop": "end_time_seconds"},
        ),
        ("rating,ebird_code,species,filename,primary_label,duration", {"path": "filename", "label": "species"}),
        (
            "primary_label,secondary_labels,type,latitude,scientific_name,common_name,author,filename",
            {"path": "filename", "label": "common_name"},
        ),
        ("itemid,hasbird", {"path": "itemid", "label": "hasbird"}),
        ("ID,Class", {"path": "ID", "label": "Class"}),
        # BirdNET: its CSV (a file each), R's and Kaleidoscope's; Common Voice; warbleR; NeMo
        (
            "Start (s),End (s),Scientific name,Common name,Confidence",
            {"label": "Common name", "start": "Start (s)", "stop": "End (s)"},
        ),
        (
            "filepath,start,end,scientific_name,common_name,confidence,lat",
            {"path": "filepath", "label": "common_name", "start": "start", "stop": "end"},
        ),
        (
            "INDIR,FOLDER,IN FILE,OFFSET,DURATION,scientific_name,common_name",
            {"path": "IN FILE", "label": "common_name", "start": "OFFSET", "duration": "DURATION"},
        ),
        ("client_id,path,sentence,tag,gender", {"path": "path", "label": "tag", "group": "client_id"}),
        (
            ",sound.files,channel,selec,start,end,species",
            {"path": "sound.files", "label": "species", "start": "start", "stop": "end"},
        ),
        (
            "audio_filepath,offset,duration,label",
            {"path": "audio_filepath", "label": "label", "start": "offset", "duration": "duration"},
        ),
        (
            "file_name,label,Set,Speaker ID",
            {"path": "file_name", "label": "label", "split": "Set", "group": "Speaker ID"},
        ),
    ],
)
def test_tables_of_corpora_and_programs(header, expected):
    header = header.split(",")
    assert chosen(header) == expected


def test_the_corpora_s_traps_are_said():
    columns = find_columns(
        TABLE,
        ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"],
        [],
        dict.fromkeys(ROLES),
        SPLIT_NAMES,
    )
    text = columns.describe()
    assert (
        "the recordings that the slices were cut from" in text
        and "not used: fsID, start, end, salience, classID" in text
    )
    assert "the label could also be classID: --set label=classID" in text
    text = find_columns(
        TABLE, ["file", "Common Name", "Species Code"], [], dict.fromkeys(ROLES), SPLIT_NAMES
    ).describe()
    assert "--set 'label=Species Code'" in text


@pytest.mark.parametrize(
    "header, settings, words",
    [
        (
            "path,label,offset",
            {},
            "offset could be a start or an end\n.*--set start=offset or --set stop=offset.*--set start=$",
        ),
        ("path,label,start,offset", {}, "offset could be a start or an end"),
        (
            "path,label,start,start_time,end",
            {},
            "several columns could be the start: start, start_time\n.*--set start=start;",
        ),
        ("path,label,start,end,stop", {}, "several columns could be the stop: end, stop"),
        ("path,label,onset,duration,length", {}, "several columns could be the duration"),
        ("path,label,start_frame,end_frame", {}, "start_frame, end_frame look like times.*\n.*--set start=$"),
        ("path,start,end", {}, "no column that could be the label; it has path, start, end"),
        ("a,b", {}, "no column that could be the path or the label"),
        ("path,label", {"label": "labl"}, "no column labl"),
        ("path,label", {"label": ""}, "no column that could be the label"),
    ],
)
def test_what_is_not_clear_is_refused_with_a_mend(header, settings, words):
    header = header.split(",")
    with pytest.raises(AumError, match=words) as caught:
        chosen(header, [["1"] * len(header)], **settings)
    assert caught.value.fix and caught.value.exit_code == 2


def test_the_caller_has_the_last_word():
    header = ["path", "label", "class", "start", "start_time", "end", "offset"]
    assert chosen(header, start="") == {"path": "path", "label": "label"}
    assert (
        chosen(header, start="start_time")["start"] == "start_time"
        and chosen(header, start="start_time")["stop"] == "end"
    )
    assert chosen(header, start="start", stop="") == {"path": "path", "label": "label", "start": "start"}
    assert chosen(header, start="", stop="end") == {"path": "path", "label": "label", "stop": "end"}
    assert chosen(header, label="Class", start="")["label"] == "class"  # in any case
    assert chosen(header, group="label", start="") == {"path": "path", "label": "label", "group": "label"}
    assert chosen(["path", "label", "split", "fold"], split="", fold="") == {"path": "path", "label": "label"}
    assert chosen(["path", "label", "offset", "len"], start="offset", duration="") == {
        "path": "path",
        "label": "label",
        "start": "offset",
    }


def test_a_column_must_hold_what_its_name_says():
    assert "split" not in chosen(["path", "label", "set"], [["x.wav", "owl", "its"], ["y.wav", "cat", "vtc"]])
    assert chosen(["path", "label", "set"], [["x.wav", "owl", "Training"]])["split"] == "set"
    assert "start" not in chosen(["path", "label", "from", "to"], [["x.wav", "owl", "Ann", "Bob"]])
    assert (
        chosen(["path", "label", "start"], [["x.wav", "owl", "soon"]])["start"] == "start"
    )  # the row is wrong, not the column


@pytest.mark.parametrize(
    "rows, settings, expected",
    [
        ([["0.5", "1.5", "owl"], ["2", "3,5", "cat"]], {}, {"label": "3", "start": "1", "stop": "2"}),  # Audacity
        ([["a.wav", "owl"], ["b.wav", "cat"]], {}, {"path": "1", "label": "2"}),
        (
            [["audio/a.wav", "0", "1.5", "owl"], ["b.wav", "1", "2", "cat"]],
            {},
            {"path": "1", "label": "4", "start": "2", "stop": "3"},
        ),
        ([["a.wav", "beach", "b1"]], {"label": "2"}, {"path": "1", "label": "2"}),
        ([["1", "2", "owl"]], {"start": ""}, {"label": "3"}),
        ([["0.5", "0.2", "owl"]], {"start": "1", "duration": "2"}, {"label": "3", "start": "1", "duration": "2"}),
    ],
)
def test_tables_without_a_header(rows, settings, expected):
    assert is_headerless(rows[0]) and chosen([], rows, **settings) == expected


@pytest.mark.parametrize(
    "rows, words",
    [
        ([["a.wav", "beach", "b1"]], "first row doesn.t tell what its 3 columns are: a.wav, beach, b1\n.*are counted"),
        ([["a.wav", "street", "0", "1", "car"]], "first row doesn.t tell"),
        ([["0.5", "0.2", "owl"]], "1 and 2 are not start and stop\n.*--set duration=2"),
        ([["---g-f_I2yQ", "1", "people", "test"]], "first row doesn.t tell"),
    ],
)
def test_tables_without_a_header_that_are_not_clear(rows, words):
    with pytest.raises(AumError, match=words):
        chosen([], rows)


def test_what_looks_like_a_time():
    assert all(map(looks_like_time, ["0", "1.5", ".5", "1,5", "-1", "1e3", "0:01", "1:02:03.5", "00:01:02,5"]))
    assert not any(map(looks_like_time, ["", "a", "1a", "2021-05-01", "nan", "1:2:3:4", "1.2.3", "x.wav"]))
    assert not is_headerless(["path", "label"]) and not is_headerless(["start", "end", "label"])
