"""One page, for any browser and without a network, to look at results and listen to them."""

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from aumcli.config import FrontendConfig
from aumcli.data.decoding.audio import load_audio, open_audio
from aumcli.data.decoding.channels import MEAN, with_channel
from aumcli.errors import AumError, debugging
from aumcli.predict.hours import Hours
from aumcli.predict.prediction import Record, answers
from aumcli.utils.files import atomic_path
from aumcli.utils.text import to_json

FILE_MB, PAGE_MB = 4, 64  # largest sound that is inside the page, and all of them together
PICTURES = 1000  # files with waveform and spectrogram
COLUMNS, MOST_COLUMNS, COLUMNS_PER_S, MELS = 800, 8000, 20, 64  # of a picture; wider ones are scrolled
PLAYED = {
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".flac": "audio/flac",
}
NOTE = (
    f"Sounds of up to {FILE_MB} MB, {PAGE_MB} MB in all, are inside this page; "
    "longer ones are played from their files, by a path relative to this page."
)


def write_page(
    path: Path, header: Record, records: Iterable[Record], files: Mapping[str, str], hours: Hours | None = None
) -> None:
    """Write the page.

    It has a table of everything, and for each file a player, a picture with its events, and scores over time.

    Args:
        path: the page.
        header: how the results were made.
        records: results with curves (see `Prediction.to_record`).
        files: where those sounds are that have no path of their own, such as standard input.
        hours: events by hour of the day, of recordings that say when they begin.
    """
    folder = resources.files("aumcli.predict")
    html, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    before, after = html.replace("@HASH@", digest).split("@DATA@")
    room = PAGE_MB * 2**20
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as page:
        about = {**header, "note": NOTE, "picture": _scale(header)}
        if hours is not None and hours.dated:
            about["hours"] = {
                "events": {label: counts.tolist() for label, counts in hours.events.items()},
                "recorded_h": [round(float(each), 4) for each in hours.recorded_h],
                "undated": hours.undated,
            }
        page.write(before + '{"header":' + _escaped(about) + ',"files":[')
        for number, record in enumerate(records):
            shown = {key: value for key, value in record.items() if key not in ("embedding", "first_window")}
            if "problem" not in record:
                file = Path(files.get(record["path"], record["path"]))
                sound = _sound(file, path, room, own=record["path"] in files)
                room -= len(sound.get("audio", "")) if sound.get("audio", "").startswith("data:") else 0
                labelled = with_channel(file, header.get("channel", MEAN))
                shown["labels"] = [{"label": label, "score": score} for label, score in answers(record)]
                shown |= sound | (_picture_or_why_not(labelled, header) if number < PICTURES else {})
            page.write(("," if number else "") + _escaped(shown))
        page.write("]}" + after.replace("@SCRIPT@", script))


def _escaped(value: object) -> str:
    """JSON that can't end the element it stands in."""
    return to_json(value, separators=(",", ":")).replace("<", "\\u003c")


def _sound(file: Path, page: Path, room: int, own: bool) -> dict[str, str]:
    """What a player plays: the sound itself where it is small, else its place.

    Formats that no browser reads become WAV.
    """
    kind, note = PLAYED.get(file.suffix.lower()), ""
    try:
        size = file.stat().st_size
        data = file.read_bytes() if kind and size <= FILE_MB * 2**20 else None
        if not kind and size <= FILE_MB * 2**20:
            waveform, rate_hz = load_audio(file)
            buffer = io.BytesIO()
            soundfile.write(buffer, waveform, rate_hz, format="WAV", subtype="PCM_16")
            data, kind, note = buffer.getvalue(), "audio/wav", "played as WAV, channels mixed"
        if data is not None and len(data) * 4 // 3 <= min(room, 2 * FILE_MB * 2**20):
            return {"audio": f"data:{kind};base64,{base64.b64encode(data).decode()}", "audio_note": note}
    except (OSError, AumError, soundfile.SoundFileError) as error:
        return {"audio_note": f"no sound: {str(error).splitlines()[0]}"}
    if own or file.suffix.lower() not in PLAYED:
        return {
            "audio_note": f"no sound: browsers don't play {file.suffix}"
            if not own
            else "no sound: too long for the page"
        }
    relative = os.path.relpath(file, page.parent).replace(os.sep, "/")
    return {"audio": quote(relative.encode("utf-8", "surrogateescape")), "audio_note": f"played from {relative}"}


def _picture_or_why_not(file: str, header: Record) -> dict[str, object]:
    """What `_picture` gives; where that fails, a note: no picture is worth the page."""
    try:
        return _picture(file, header)
    except AumError as error:
        return {"audio_note": f"no picture: {error.problem}"}
    except Exception as error:
        if debugging():
            raise
        return {"audio_note": f"no picture: {type(error).__name__}: {error}"}


def _band_hz(header: Record) -> tuple[float, float]:
    """The band of the model's input."""
    low_hz, high_hz = header.get("band_hz") or (FrontendConfig().low_hz, header["sample_rate_hz"] / 2)
    return low_hz, high_hz


def _scale(header: Record) -> dict[str, object]:
    """What a picture's rows are: mel bands between two frequencies."""
    return {"hz": [*_band_hz(header)], "mels": MELS}


def _columns(start: int, count: int, step: int, samples: int, columns: int) -> tuple[np.ndarray, ...]:
    """The columns of a picture of so many samples that `count` values fall into, one every `step` samples from `start`.

    Returns:
        For each column that gets some: its index, which of the values is its first, and how many it gets.
    """
    last = (start + (count - 1) * step) * columns // samples
    into = np.arange(start * columns // samples, last + 1)
    firsts = np.maximum(0, -(-(-(-into * samples // columns) - start) // step))  # rounded up, twice
    sizes = np.diff(firsts, append=count)
    into, firsts, sizes = into[sizes > 0], firsts[sizes > 0], sizes[sizes > 0]
    return np.minimum(into, columns - 1), firsts, sizes


def _picture(file: str, header: Record) -> dict[str, object]:
    """Spectrogram as a PNG and the waveform's lowest and highest sample of each column, in percent."""
    import torch
    from matplotlib import colormaps
    from matplotlib.image import imsave

    from aumcli.core.frontend import LogMel
    from aumcli.data.infer import fitted_window

    rate_hz, (low_hz, high_hz) = header["sample_rate_hz"], _band_hz(header)
    window = fitted_window(MELS, FrontendConfig().window_ms, rate_hz, (low_hz, high_hz), FrontendConfig().clip_s)
    band = {"sample_rate_hz": rate_hz, "n_mels": MELS, "low_hz": low_hz, "high_hz": high_hz}
    frontend = LogMel(FrontendConfig(**band | window))
    with open_audio(file, rate_hz) as (info, blocks):
        samples = max(1, int(info.duration_s * rate_hz))
        columns = min(
            MOST_COLUMNS, max(COLUMNS, int(COLUMNS_PER_S * info.duration_s)), 1 + samples // frontend.config.hop_samples
        )
        energy, count, start = np.zeros((columns, MELS)), np.zeros(columns), 0
        peaks = np.zeros((columns, 2))
        for block in blocks:
            if not len(block):
                continue
            frames = frontend.energies(torch.from_numpy(block)[None])[0].double().numpy()  # (frames, mels)
            into, firsts, sizes = _columns(start, len(frames), frontend.config.hop_samples, samples, columns)
            np.add.at(energy, into, np.add.reduceat(frames, firsts))
            np.add.at(count, into, sizes)
            into, firsts, _ = _columns(start, len(block), 1, samples, columns)
            np.minimum.at(peaks[:, 0], into, np.minimum.reduceat(block, firsts))
            np.maximum.at(peaks[:, 1], into, np.maximum.reduceat(block, firsts))
            start += len(block)
    filled = np.maximum.accumulate(np.where(count > 0, np.arange(columns), 0))  # a gap repeats its left
    energy = (energy / np.maximum(count, 1)[:, None])[filled]
    low, high = np.percentile(energy, [5, 99.8])
    buffer = io.BytesIO()
    imsave(buffer, energy.T, vmin=low, vmax=max(high, low + 1), cmap=colormaps["magma"], origin="lower", format="png")
    loudest = max(np.abs(peaks).max(), 1e-9)
    return {
        "picture": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        "peaks": np.round(100 * peaks / loudest).astype(int).tolist(),
    }
