"""The names that columns have in tables about sounds, of corpora and of annotation programs.

A name is compared by its words: `Begin Time (s)`, `beginTime`, `begin_time_s` and R's `Begin.Time..s.` are the same.
"""

import re
from collections.abc import Mapping, Sequence


def _words_of(text: str) -> tuple[str, ...]:
    return tuple(text.split())


HERTZ = {"hz": 1.0, "khz": 1000.0}  # per unit of frequency


def _frequencies(edge: str, bound: str) -> tuple[str, ...]:
    """Names for an edge of a band, with a unit and without."""
    names = [f"{first}_{word}" for first in (edge, bound) for word in ("freq", "frequency", "f")]
    names += [f"{word}_{last}" for last in (edge, bound) for word in ("freq", "frequency")]
    return (*(f"{name}_{unit}" for name in (*names, edge) for unit in HERTZ), *names)


# In order of preference; the last ones of paths and labels are numbers and ids, which serve where nothing else does.
NAMES = {
    "path": _words_of("""
        path file_path filepath begin_path audio_path audio_filepath wav_path sound_path mp3_path rel_path relative_path
        notated_path file filename file_name fname in_file begin_file wav wav_file wav_filename audio audio_file
        audio_filename sound sound_file sound_files sound_filename recording recording_filename clip clip_name
        clip_filename slice_file_name segment_id clip_id recording_id audio_id sound_id sample_id track_id item_id
        itemid ytid youtube_id video_id uuid id"""),
    "label": _words_of("""
        label labels class class_name classname category category_name species common_name primary_label ebird_code tag
        tags event_label event_labels sound_event event events scene_label scene label_name class_label display_name
        sound_class sound_type scientific_name species_name genre genres top_genre instrument emotion call_type
        annotation annotations manual_id primary_common_name positive_labels classes species_code ground_truth target
        target_label hasbird class_id label_id category_id mid mids"""),
    "low": _frequencies("low", "min"),
    "high": _frequencies("high", "max"),
    "split": _words_of("split set subset partition data_split split_name"),
    "fold": _words_of("fold folds cv_fold fold_id kfold"),
    "group": _words_of("""
        group speaker speaker_id spk spk_id subject subject_id participant participant_id patient patient_id client_id
        recordist video video_id session session_id site"""),
}

SECONDS = dict.fromkeys(_words_of("s sec secs second seconds"), 1.0)
UNITS: dict[str, float | None] = {
    **SECONDS,
    **dict.fromkeys(_words_of("ms msec millis millisecond milliseconds"), 1e-3),
    **dict.fromkeys(_words_of("us microseconds"), 1e-6),
    **dict.fromkeys(_words_of("mins minutes"), 60.0),
    **dict.fromkeys(_words_of("sample samples samp samps"), None),  # to be divided by the file's rate
}
UNCLEAR = {*_words_of("frame frames index idx bin bins tick ticks block blocks min")}  # units of no known length

BEGINS = {*_words_of("start starts begin begins beg onset from t0 tmin xmin tstart")}
ENDS = {*_words_of("stop end ends ending finish to t1 tmax xmax tend tstop")}
LASTS = {*_words_of("duration dur length len delta")}
SURE = {*_words_of("start begin onset stop end offset")}  # times, whatever stands there; others must look like times
OF_PARTS = {
    *_words_of("""event segment seg clip window label annotation selection call vocalization syllable interval
    range region""")
}
OF_TIME = {*_words_of("time times timestamp t pos position")}
OF_FILES = {*_words_of("sound audio recording")}
ONE_WORD = re.compile(r"(start|begin|onset|end|stop)(time|timestamp|sec|secs|seconds|ms|s)")


def words(name: str) -> list[str]:
    """A column's name as words in lower case: "Begin Time (s)" -> begin, time, s; "fsID" -> fs, id."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("kHz", "khz")).lower().replace("_", " ")
    found: list[str] = []
    for word in re.findall(r"[^\W_]+", apart):
        two = ONE_WORD.fullmatch(word)
        found += two.groups() if two else [word]
    return found


def unit(name: str) -> float | None:
    """Seconds per unit of a column of times: 1 where its name has no unit; None for samples."""
    return next((UNITS[word] for word in words(name) if word in UNITS), 1.0)


def known_columns(header: Sequence[str]) -> int:
    """How many of the columns would serve as something."""
    names = {name for each in NAMES.values() for name in each}
    return sum(bool(time_role(words(name))) or "_".join(words(name)) in names for name in header)


def time_role(name: Sequence[str], renamed: Mapping[str, str] | None = None) -> str:
    """Say what a column tells about time.

    Args:
        name: its words.
        renamed: words that stand for others in this table.

    Returns:
        `start`, `stop`, `duration`, `offset` (either a start or a stop), `file offset` (Raven's, a start), or "".
    """
    rest = {(renamed or {}).get(word, word) for word in name if word not in UNITS} - OF_PARTS - OF_TIME
    if rest in ({"file", "offset"}, {"begin", "file", "offset"}):
        return "file offset"
    if any(word in UNITS for word in name):
        rest -= {"file"}  # Begin File is a name, Beg File Samp (samples) is a time
    kinds = rest - {"offset"} - OF_FILES
    if len(kinds) == 1 and kinds <= BEGINS | ENDS:
        return "start" if kinds <= BEGINS else "stop"
    if rest == {"offset"}:
        return "offset"
    return "duration" if len(rest) == 1 and rest <= LASTS else ""


def looks_like_time(text: str) -> bool:
    """Whether a text is a number, with a point or a comma, or h:m:s."""
    number = r"[-+]?\d*[.,]?\d+(e[-+]?\d+)?|\d+(:\d{1,2}){1,2}([.,]\d+)?"
    return re.fullmatch(number, text.strip(), re.IGNORECASE) is not None
