"""Mutated sound files of every format, decoded as `aum predict` does: python tests/fuzz_audio.py [--files 2400] [--seed 0].

A child process decodes; it must neither die nor hang, and what it refuses it must refuse with a reason that names the file.
Exit code 1 where one does otherwise; such files are kept in --keep.
"""

import argparse
import itertools
import json
import multiprocessing
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

HANG_S, CHILD_GIB = 20.0, 4
FORMATS = {"wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "DOUBLE"), "adpcm.wav": ("WAV", "IMA_ADPCM"), "ulaw.wav": ("WAV", "ULAW"),
           "gsm.wav": ("WAV", "GSM610"), "wavex.wav": ("WAVEX", "PCM_24"), "rf64": ("RF64", "PCM_16"), "w64": ("W64", "PCM_16"),
           "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
           "aiff": ("AIFF", "PCM_16"), "aifc": ("AIFF", "FLOAT"), "au": ("AU", "PCM_16"), "caf": ("CAF", "ALAC_16")}
EXTREME = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)


def originals(folder: Path) -> dict[str, bytes]:
    """A third of a second of noisy stereo, or mono, in each format."""
    rng = np.random.default_rng(0)
    sounds = {}
    for name, (kind, subtype) in FORMATS.items():
        rate_hz = 48000 if subtype == "OPUS" else 8000 if subtype == "GSM610" else 22050
        sound = 0.3 * np.sin(np.arange(rate_hz // 3) * 0.05)[:, None] + 0.05 * rng.standard_normal((rate_hz // 3, 2))
        path = folder / f"original.{name}"
        soundfile.write(path, sound[:, :1] if subtype == "GSM610" else sound, rate_hz, format=kind, subtype=subtype)
        sounds[name] = path.read_bytes()
    return sounds


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One to three mutations; the name says which."""
    names, result = [], bytearray(data)
    for _ in range(rng.integers(1, 4)):
        kind = rng.choice(["flip", "header", "field", "cut", "remove", "repeat", "zero", "splice", "append", "swap"])
        names.append(str(kind))
        size = max(1, len(result))
        at = int(rng.integers(size))
        if kind == "flip":
            for place in rng.integers(size, size=rng.integers(1, 60)):
                result[place:place + 1] = bytes([rng.integers(256)])
        elif kind == "header":
            for place in rng.integers(min(size, 128), size=rng.integers(1, 8)):
                result[place:place + 1] = bytes([rng.integers(256)])
        elif kind == "field":
            place = int(rng.integers(min(size, 256))) & ~1
            result[place:place + 4] = struct.pack("<I" if rng.random() < 0.5 else ">I", EXTREME[rng.integers(len(EXTREME))])
        elif kind == "cut":
            del result[at:]
        elif kind == "remove":
            del result[at:at + int(rng.integers(1, 400))]
        elif kind == "repeat":
            result[at:at] = result[at:at + int(rng.integers(1, 2000))]
        elif kind == "zero":
            length = int(rng.integers(1, 800))
            result[at:at + length] = bytes(len(result[at:at + length]))
        elif kind == "splice":
            result[at:] = other[min(at, len(other) - 1):]
        elif kind == "append":
            result += rng.bytes(int(rng.integers(1, 3000)))
        else:
            other_at = int(rng.integers(size))
            result[at:at + 1], result[other_at:other_at + 1] = result[other_at:other_at + 1], result[at:at + 1]
    return "+".join(names), bytes(result)


def decode_all(paths: list[str], start: int, connection) -> None:
    """In the child: decode one file after another and say how each ended."""
    from aumcli.predict.decoding import End, decode
    from aumcli.predict.inputs import Source

    resource.setrlimit(resource.RLIMIT_AS, (CHILD_GIB * 2**30, CHILD_GIB * 2**30))
    for number, path in enumerate(paths[start:], start):
        began, samples, end = time.perf_counter(), 0, None
        try:
            for part in decode(Source.of(path), 8000, 7800, 3900):
                if isinstance(part, End):
                    end = part
                else:
                    samples += sum(len(window) for _, window in part)
            ended = {"problem": end.problem, "fix": end.fix, "duration_s": end.duration_s, "samples": samples}
        except BaseException as error:  # anything but a named refusal is what is looked for
            ended = {"raised": f"{type(error).__name__}: {error}"}
        connection.send((number, {**ended, "seconds": time.perf_counter() - began,
                                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
    connection.send(None)


@dataclass
class Campaign:
    """How many mutated files ended how, and the bad ones."""

    files: int = 0
    decoded: int = 0
    refused: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)        # path, what happened
    reasons: Counter = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_mib: float = 0.0

    def count(self, path: str, end: dict) -> None:
        """Count one file's end."""
        self.slowest_s, self.peak_mib = max(self.slowest_s, end["seconds"]), max(self.peak_mib, end["peak_mib"])
        if "raised" in end:
            self.bad.append((path, end["raised"]))
        elif not end["problem"]:
            self.decoded += 1
            if not end["samples"] or not end["duration_s"] > 0:
                self.bad.append((path, f"neither sound nor a reason: {end}"))
        else:
            self.refused += 1
            self.reasons[end["problem"].replace(path, "FILE").split(":")[0].split(", ")[0][:60].rstrip("0123456789. ")] += 1
            if path not in end["problem"] or not end["fix"]:
                self.bad.append((path, f"refused without a name or a fix: {end['problem']}"))


def fuzz(files: int, seed: int, folder: Path) -> Campaign:
    """Write `files` mutated files below a folder and decode each in a child, which is replaced where it dies or hangs."""
    sounds, campaign = originals(folder), Campaign(files)
    names = itertools.cycle(sounds)
    paths, how = [], []
    for number in range(files):
        rng, name = np.random.default_rng([seed, number]), next(names)
        kind, data = mutate(sounds[name], sounds[list(sounds)[rng.integers(len(sounds))]], rng)
        path = folder / f"{number:05d}.{name}"
        path.write_bytes(data)
        paths.append(str(path))
        how.append(kind)
    context, start = multiprocessing.get_context("spawn"), 0
    while start < files:
        reader, writer = context.Pipe(duplex=False)
        child = context.Process(target=decode_all, args=(paths, start, writer))
        child.start()
        writer.close()
        try:
            while reader.poll(HANG_S if start else 3 * HANG_S):     # the first one waits for the imports
                message = reader.recv()
                if message is None:
                    start = files
                    break
                campaign.count(paths[message[0]], message[1])
                start = message[0] + 1
            else:
                campaign.bad.append((paths[start], f"hung for {HANG_S} s ({how[start]})"))
                start += 1
        except EOFError:
            child.join()
            campaign.bad.append((paths[start], f"the process died with {child.exitcode} ({how[start]})"))
            start += 1
        child.kill()
        child.join()
        reader.close()
    return campaign


def main() -> None:
    """Run a campaign and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that ended badly")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = fuzz(options.files, options.seed, Path(folder))
        for path, what in campaign.bad:
            print(f"BAD {Path(path).name}: {what}")
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, options.keep)
    print(f"{campaign.files} files of {len(FORMATS)} formats, seed {options.seed}, libsndfile {soundfile.__libsndfile_version__}: "
          f"{campaign.decoded} decoded, {campaign.refused} refused with a reason, {len(campaign.bad)} bad; "
          f"slowest {campaign.slowest_s:.2f} s, peak {campaign.peak_mib:.0f} MiB")
    print(json.dumps(dict(campaign.reasons.most_common()), indent=1))
    sys.exit(bool(campaign.bad))


if __name__ == "__main__":
    main()
