"""Sound files that are damaged, cut, joined or lie, decoded as `aum predict` does.

    python tests/fuzz_audio.py [--files 4200] [--seed 0]

Whoever makes a file knows what sound is in it. A child process decodes: it must neither die nor hang; what it refuses
it must refuse with a reason that names the file; and what it decodes must be all the sound that is there, not a sample
less or elsewhere. Of mutated files, whose truth nobody knows, only the former is asked. Exit code 1 where one ends
otherwise; such files are kept in --keep.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from sound_files import (
    COUNTED,
    FORMATS,
    ID3V1,
    ape,
    chunk,
    encoded,
    flac_parts,
    id3v2,
    mean_of,
    mp3_frames,
    ogg_pages,
    replaced,
    saying,
    sized,
    summed,
    wrapped,
)

HANG_S, CHILD_GIB = 20.0, 4
WINDOW, HOP = 7800, 3900
SECONDS, SHORT_SECONDS, LONG_SECONDS = 3.0, 0.4, 10.0
ENDS = 0.1  # of a sound that is damaged between a quarter and three quarters, so much at each end is untouched
EXTREME = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)
UNKNOWN = {
    "wav": (0, 0xFFFFFFFF, 0x7FFFF000, 2_000_000_000, 1_999_999_964, 0x80000000),
    "au": (0, 0xFFFFFFFF),
    "aiff": (0, 0x7F000000, 0xFFFFFFFF),
    "24.wav": (0, 0xFFFFFFFF, 0x7FFFFFFF),
    "float.wav": (0, 0xFFFFFFDB),
    "wavex.wav": (0, 0xFFFFFFFF),
    "caf": (0, -1),
    "w64": (0, 2**64 - 1, 2**63 - 25),
    "rf64": (0, 2**64 - 1),
}
NAMES = (
    b"plain",
    b"-i",
    b" ",
    b"a b",
    b"'q\"`$(x)",
    b"new\nline",
    b"tab\t",
    b"caf\xe9",
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b"%s%n{}{0}",
    b"a::left",
    b"::2",
    b"\xf0\x9f\x90\x8b",
    b"x" * 200,
    b"*[?]",
    b"#",
    b"\xff\xfe",
    b"con.",
    b"a;b",
    b"\\",
    b"~",
    b"\x1b[31m",
    b"\xe2\x80\xae",
    b"raw.raw",
)


@dataclass(frozen=True)
class Case:
    """A file and what is known of it."""

    path: str
    kind: str
    expected: str  # any, refused, whole, prefix or ends; "refused or" before the latter three
    truth: str = ""  # an .npy with the sound, (samples,) float32, at
    rate_hz: int = 8000

    @property
    def may_be_refused(self) -> bool:
        return self.expected == "any" or self.expected.startswith("refused")


class Sounds:
    """Whole files in each format, mono and stereo, long and short, with what is in them."""

    def __init__(self, folder: Path):
        self.folder, self.known = folder, {}

    def any(
        self, rng: np.random.Generator, names: tuple[str, ...] | None = None, seconds: float = SECONDS
    ) -> tuple[str, bytes]:
        """A format and a file."""
        name = str(rng.choice(names or tuple(FORMATS)))
        return name, self.of(name, 1 + int(rng.integers(2)), seconds)

    def of(self, name: str, channels: int = 1, seconds: float = SECONDS) -> bytes:
        """A file in a format."""
        key = name, 1 if name == "gsm.wav" else channels, seconds
        if key not in self.known:
            self.known[key] = encoded(name, seconds, key[1], seed=len(self.known))
        return self.known[key]

    def truth(self, data: bytes, samples: np.ndarray | None = None) -> str:
        """Where the sound of a file is kept; `samples` of one that libsndfile can't be trusted with."""
        path = self.folder / f"{hash(data):x}.npy"
        if not path.exists():
            np.save(path, mean_of(data) if samples is None else samples)
        return str(path)


# each gives the name of a format, the file, what is expected of it, and the sound in it

Made = tuple[str, bytes, str, str]


def joined(rng: np.random.Generator, sounds: Sounds) -> Made:
    """Two files in one."""
    name, data = sounds.any(rng, seconds=float(rng.choice([SECONDS, SHORT_SECONDS])))
    _, other = sounds.any(rng, seconds=float(rng.choice([SECONDS, SHORT_SECONDS])))
    if rng.random() < 0.5:
        other = sounds.of(name)
    between = b"" if rng.random() < 0.7 else (id3v2(30), bytes(40), ID3V1)[rng.integers(3)]
    return name, data + between + other, "refused", ""


def joined_frames(rng: np.random.Generator, sounds: Sounds) -> Made:
    """Two MPEG streams without an index in one: they are one stream."""
    first, second = (
        b"".join(mp3_frames(sounds.of("mp3", 1, seconds))[1:]) for seconds in rng.choice([SECONDS, SHORT_SECONDS], 2)
    )
    count = len(mp3_frames(first + second))
    return "mp3", first + second, "whole", sounds.truth(first + second, np.full(576 * count, np.nan, np.float32))


def lying(rng: np.random.Generator, sounds: Sounds) -> Made:
    """A header that says less or more than there is."""
    name, data = sounds.any(rng, COUNTED)
    with soundfile.SoundFile(_opened(data)) as file:
        samples = file.frames
    step = 1152 if name == "mp3" else 1
    other = int(
        rng.choice(
            [samples * rng.uniform(0, 1), samples * rng.uniform(1, 20), samples - step, samples + step, 1, samples // 2]
        )
    )
    if abs(other - samples) < step or other // 576 == -(-samples // 576):
        other = samples // 2
    return name, saying(name, data, max(step, other)), "refused", ""


def unknown(rng: np.random.Generator, sounds: Sounds) -> Made:
    """A header whose writer did not know the size; sometimes the file was cut later, which nobody can tell."""
    name, data = sounds.any(rng, tuple(UNKNOWN))
    file = sized(name, data, int(UNKNOWN[name][rng.integers(len(UNKNOWN[name]))]))
    if rng.random() < 0.3:
        return name, file[: len(file) - int(rng.integers(1, len(file) // 2))], "prefix", sounds.truth(data)
    return name, file, "whole", sounds.truth(data)


def cut(rng: np.random.Generator, sounds: Sounds) -> Made:
    """A file that was cut anywhere."""
    name, data = sounds.any(rng)
    where = rng.choice(3)
    end = (int(rng.integers(len(data))), int(rng.integers(min(400, len(data)))), len(data) - int(rng.integers(1, 20)))[
        where
    ]
    # of ADPCM's last block, and ALAC's table, some bytes hold nothing
    return (
        name,
        data[:end],
        "refused or whole" if name in ("ima.wav", "ms.wav", "gsm.wav", "alac.caf") else "refused",
        sounds.truth(data),
    )


def cut_frames(rng: np.random.Generator, sounds: Sounds) -> Made:
    """An MPEG stream without an index that was cut: whole frames are whole."""
    frames = mp3_frames(sounds.of("mp3"))[1:]
    data = b"".join(frames)
    data, whole = data[: int(rng.integers(len(data)))], []
    for frame in frames:
        if sum(map(len, whole)) + len(frame) > len(data):
            break
        whole.append(frame)
    return "mp3", data, "refused or whole", sounds.truth(data, np.full(576 * len(whole), np.nan, np.float32))


def overwritten(rng: np.random.Generator, sounds: Sounds) -> Made:
    """Other bytes in the middle: either that is noticed, or the sound around them stays where it is."""
    name, data = sounds.any(rng)
    at, count = int(rng.uniform(0.25, 0.7) * len(data)), int(rng.integers(1, 300))
    patch = rng.bytes(count) if rng.random() < 0.7 else bytes(count)
    expected = "refused or whole" if name in ("ogg", "opus", "flac") else "refused or ends"
    return name, replaced(data, at, patch), expected, sounds.truth(data)


def moved(rng: np.random.Generator, sounds: Sounds) -> Made:
    """Bytes that are missing, doubled or put in in the middle."""
    name, data = sounds.any(rng)
    at, count = int(rng.uniform(0.25, 0.7) * len(data)), int(rng.integers(20, 600))
    middle = (b"", data[at : at + count] * 2, rng.bytes(count) + data[at : at + count])[rng.integers(3)]
    # the end of ADPCM's last block is zeros: moved behind the sound, they look like padding
    expected = "refused" if any(data[-count:]) else "any"
    return name, data[:at] + middle + data[at + count :], expected, ""


def lost(rng: np.random.Generator, sounds: Sounds) -> Made:
    """Whole pages or frames that are missing, doubled or exchanged in the middle; Ogg's sometimes numbered anew."""
    name = str(rng.choice(["ogg", "opus", "flac", "mp3"]))
    data = sounds.of(name, 1, LONG_SECONDS)
    blocks, units = flac_parts(data) if name == "flac" else ([], mp3_frames(data) if name == "mp3" else ogg_pages(data))
    head = b"fLaC" + b"".join(blocks) if blocks else b""
    at, count = int(rng.integers(3, len(units) - 2)), int(rng.integers(1, 3))
    how = rng.integers(3)
    middle = ([], units[at : at + count] * 2, units[at : at + 2][::-1])[how]
    units = units[:at] + middle + units[at + (2 if how == 2 else count) :]
    if name in ("ogg", "opus") and rng.random() < 0.5 and how < 2:
        units = [summed(replaced(page, 18, struct.pack("<I", number))) for number, page in enumerate(units)]
    expected = "any" if name == "mp3" and how == 2 else "refused"  # MPEG's frames have no number
    return name, head + b"".join(units), expected, ""


def surrounded(rng: np.random.Generator, sounds: Sounds) -> Made:
    """Tags, zeros and chunks before and behind, as programs put them there."""
    name, data = sounds.any(rng)
    kind, subtype, _ = FORMATS[name]
    behind = [
        b"",
        ID3V1,
        ape() + ID3V1,
        ape(header=False),
        bytes(int(rng.integers(1, 9000))),
        id3v2(int(rng.integers(500))),
    ]
    if kind in ("WAV", "WAVEX", "RF64"):
        own = chunk(bytes(rng.integers(97, 123, 4, dtype=np.uint8)), rng.bytes(int(rng.integers(300))))
        behind += [own, own + chunk(b"LIST", b"INFO"), own[:-1] if own[4] % 2 else own]
    file = data + behind[rng.integers(len(behind))]
    if kind in ("FLAC", "OGG", "MP3", "WAV") and rng.random() < 0.5:
        file = id3v2(int(rng.integers(3000))) + file
    if kind == "MP3" and rng.random() < 0.5:
        file = (rng.bytes(int(rng.integers(1, 30))).replace(b"\xff", b"\0"), bytes(3000), id3v2(9) + b"\r\n")[
            rng.integers(3)
        ] + file
    return name, file, "whole", sounds.truth(data)


def within_wav(rng: np.random.Generator, sounds: Sounds) -> Made:
    """An MP3 within a WAV file, whole or not."""
    data = sounds.of("mp3")
    kind = int(rng.integers(4))
    size = (None, 0, 0xFFFFFFFF, 2_000_000_000)[kind]
    if rng.random() < 0.4:
        return "wav", wrapped(0x55, data[: int(rng.uniform(0.1, 0.9) * len(data))], 16000, size), "refused", ""
    return "wav", wrapped(0x55, data, 16000, size), "whole", sounds.truth(data)


def named(rng: np.random.Generator, sounds: Sounds) -> Made:
    """A good file under an odd name."""
    name, data = sounds.any(rng)
    return name, data, "whole", sounds.truth(data)


def mutated(rng: np.random.Generator, sounds: Sounds) -> Made:
    """One to three mutations anywhere."""
    name, data = sounds.any(rng, seconds=SHORT_SECONDS)
    result, (_, other) = bytearray(data), sounds.any(rng, seconds=SHORT_SECONDS)
    for _ in range(rng.integers(1, 4)):
        _mutate(result, other, rng)
    return name, bytes(result), "any", ""


def _mutate(result: bytearray, other: bytes, rng: np.random.Generator) -> None:
    kind = rng.choice(["flip", "header", "field", "cut", "remove", "repeat", "zero", "splice", "append", "swap"])
    size = max(1, len(result))
    at = int(rng.integers(size))
    if kind == "flip":
        for place in rng.integers(size, size=rng.integers(1, 60)):
            result[place : place + 1] = bytes([rng.integers(256)])
    elif kind == "header":
        for place in rng.integers(min(size, 128), size=rng.integers(1, 8)):
            result[place : place + 1] = bytes([rng.integers(256)])
    elif kind == "field":
        place = int(rng.integers(min(size, 256))) & ~1
        result[place : place + 4] = struct.pack(
            "<I" if rng.random() < 0.5 else ">I", EXTREME[rng.integers(len(EXTREME))]
        )
    elif kind == "cut":
        del result[at:]
    elif kind == "remove":
        del result[at : at + int(rng.integers(1, 400))]
    elif kind == "repeat":
        result[at:at] = result[at : at + int(rng.integers(1, 2000))]
    elif kind == "zero":
        length = int(rng.integers(1, 800))
        result[at : at + length] = bytes(len(result[at : at + length]))
    elif kind == "splice":
        result[at:] = other[min(at, len(other) - 1) :]
    elif kind == "append":
        result += rng.bytes(int(rng.integers(1, 3000)))
    else:
        other_at = int(rng.integers(size))
        result[at : at + 1], result[other_at : other_at + 1] = result[other_at : other_at + 1], result[at : at + 1]


KINDS: tuple[Callable[[np.random.Generator, Sounds], Made], ...] = (
    joined,
    lying,
    unknown,
    cut,
    overwritten,
    moved,
    surrounded,
    mutated,
    within_wav,
    named,
    joined_frames,
    cut_frames,
    lost,
    mutated,
)


def _opened(data: bytes):
    import io

    return io.BytesIO(data)


def make(number: int, seed: int, sounds: Sounds, folder: Path) -> Case:
    """Write one file."""
    kind = KINDS[number % len(KINDS)]
    rng = np.random.default_rng([seed, number])
    name, data, expected, truth = kind(rng, sounds)
    odd = NAMES[rng.integers(len(NAMES))] if kind is named else b"sound"
    path = os.path.join(os.fsencode(folder), b"%05d" % number, odd + b"." + name.encode())
    os.mkdir(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(data)
    return Case(os.fsdecode(path), kind.__name__, expected, truth, FORMATS[name][2] if truth else 8000)


# in the child


def decode_all(cases: list[Case], start: int, connection) -> None:
    """Decode one file after another and say how each ended."""
    from aumcli.predict.decoding import DecodeResult, decode
    from aumcli.predict.inputs import Source

    resource.setrlimit(resource.RLIMIT_AS, (CHILD_GIB * 2**30, CHILD_GIB * 2**30))
    for number, case in enumerate(cases[start:], start):
        began, windows, end = time.perf_counter(), [], None
        try:
            for part in decode(Source.of(case.path), case.rate_hz, WINDOW, HOP):
                if isinstance(part, DecodeResult):
                    end = part
                else:
                    windows += part
            ended = {"problem": end.problem, "fix": end.fix, "bad": verdict(case, end, windows)}
        except BaseException as error:  # anything but a named refusal is what is looked for
            ended = {"bad": f"raised {type(error).__name__}: {error}"}
        connection.send(
            (
                number,
                {
                    **ended,
                    "seconds": time.perf_counter() - began,
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                },
            )
        )
    connection.send(None)


def verdict(case: Case, end, windows: list) -> str:
    """What is wrong with how a file ended; "" for nothing."""
    if end.problem:
        if case.path not in end.problem or not end.fix:
            return f"refused without a name or a fix: {end.problem}"
        return "" if case.may_be_refused else f"a good file is refused: {end.problem}"
    if case.expected == "refused":
        return f"decoded as if it were whole: {end.duration_s:.4f} s"
    heard = np.full(max(start + len(window) for start, window in windows), np.nan, np.float32)
    for start, window in windows:
        heard[start : start + len(window)] = window
    if not len(heard) or not end.duration_s > 0 or np.isnan(heard).any():
        return f"neither all of the sound nor a reason: {len(heard)} samples, {end.duration_s} s"
    if case.expected == "any":
        return ""
    if round(end.duration_s * case.rate_hz) != len(heard):
        return f"lasts {end.duration_s} s, and {len(heard)} samples at {case.rate_hz} Hz were given"
    return differs(heard, np.load(case.truth), case.expected.removeprefix("refused or "))


def differs(heard: np.ndarray, truth: np.ndarray, expected: str) -> str:
    """How the sound that was used differs from the one that is there; NaN in the latter: any sound, of that length."""
    if expected == "prefix":
        truth = truth[: len(heard)]
    if len(heard) != len(truth):
        return f"{len(heard)} samples used, {len(truth)} are there"
    kept = np.ones(len(truth), dtype=bool)
    if expected == "ends":
        kept[int(ENDS * len(truth)) : -int(ENDS * len(truth))] = False
    largest = np.nanmax(np.abs(heard - truth), where=kept & ~np.isnan(truth), initial=0)
    return f"sound is off by {largest:.4f}" if largest > 1e-4 else ""


@dataclass
class Campaign:
    """How many files ended how, and the bad ones."""

    files: int = 0
    decoded: Counter = field(default_factory=Counter)  # by kind
    refused: Counter = field(default_factory=Counter)
    bad: list[tuple[str, str]] = field(default_factory=list)  # path, what happened
    reasons: Counter = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_mib: float = 0.0

    def count(self, case: Case, end: dict) -> None:
        """Count one file's end."""
        self.slowest_s, self.peak_mib = max(self.slowest_s, end["seconds"]), max(self.peak_mib, end["peak_mib"])
        if end["bad"]:
            self.bad.append((case.path, f"{case.kind}: {end['bad']}"))
        elif end["problem"]:
            self.refused[case.kind] += 1
            self.reasons[
                end["problem"].replace(case.path, "FILE").split(":")[0].split(", ")[0][:60].rstrip("0123456789. ")
            ] += 1
        else:
            self.decoded[case.kind] += 1


def fuzz(files: int, seed: int, folder: Path) -> Campaign:
    """Write `files` files below a folder and decode each in a child, which is replaced where it dies or hangs."""
    (folder / "truth").mkdir()
    sounds, campaign = Sounds(folder / "truth"), Campaign(files)
    cases = [make(number, seed, sounds, folder) for number in range(files)]
    context, start = multiprocessing.get_context("spawn"), 0
    while start < files:
        reader, writer = context.Pipe(duplex=False)
        child = context.Process(target=decode_all, args=(cases, start, writer))
        child.start()
        writer.close()
        try:
            while reader.poll(HANG_S if start else 3 * HANG_S):  # the first one waits for the imports
                message = reader.recv()
                if message is None:
                    start = files
                    break
                campaign.count(cases[message[0]], message[1])
                start = message[0] + 1
            else:
                campaign.bad.append((cases[start].path, f"{cases[start].kind}: hung for {HANG_S} s"))
                start += 1
        except EOFError:
            child.join()
            campaign.bad.append((cases[start].path, f"{cases[start].kind}: the process died with {child.exitcode}"))
            start += 1
        child.kill()
        child.join()
        reader.close()
    return campaign


def main() -> None:
    """Run a campaign and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that ended badly")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = fuzz(options.files, options.seed, Path(folder))
        for path, what in campaign.bad:
            print(ascii(f"BAD {Path(path).relative_to(folder)}: {what}"))
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, options.keep / f"{Path(path).parent.name}{Path(path).suffix}")
    version, decoded, refused = soundfile.__libsndfile_version__, campaign.decoded.total(), campaign.refused.total()
    print(
        f"{campaign.files} files of {len(FORMATS)} formats, seed {options.seed}, libsndfile {version}: "
        f"{decoded} decoded, {refused} refused with a reason, {len(campaign.bad)} bad; "
        f"slowest {campaign.slowest_s:.2f} s, peak {campaign.peak_mib:.0f} MiB"
    )
    for kind in sorted({kind.__name__ for kind in KINDS}):
        print(f"{kind}: {campaign.decoded[kind]} decoded, {campaign.refused[kind]} refused")
    print(json.dumps(dict(campaign.reasons.most_common()), indent=1))
    sys.exit(bool(campaign.bad))


if __name__ == "__main__":
    main()
