"""Opening every clip of a corpus once: in several threads, in order, in bounded memory, and never twice."""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from functools import partial

from aumcli.data.clips import Clip, Clips, clip_key
from aumcli.data.decoding.audio import SILENCE, AudioInfo, check_clip
from aumcli.data.sources import SkippedClip
from aumcli.errors import AumError
from aumcli.utils.journal import Journal
from aumcli.utils.threads import map_in_parts

LOUDEST = 10.0  # times full scale: mixing overshoots by less than 20 dB, other units by more
SHORTEST_S = 0.025  # one window of the frontend: less has no spectrum
PARTS = 8  # per thread: so that threads finish together, and an interruption takes effect soon
BATCH_CLIPS = 512  # clips that are submitted to the threads, and written to the journal, at a time


def open_clips(
    clips: Clips, journal: Journal, workers: int, longest_s: float | None, keep: Collection[str] = ()
) -> Iterator[AudioInfo | SkippedClip]:
    """Decode each clip, unless the journal has its result.

    Args:
        clips: what to open.
        journal: gets the results of usable clips; the others are decoded again next time.
        workers: threads; libsndfile decodes outside Python's lock.
        longest_s: a clip that lasts longer can't be used; None for no limit.
        keep: which implausible clips are used nevertheless: `silent`, `loud`.

    Yields:
        For each clip, in order, what it holds, or why it can't be used.
    """
    threads = ThreadPoolExecutor(workers)
    try:
        for begin in range(0, len(clips), BATCH_CLIPS):
            batch = list(clips[begin : begin + BATCH_CLIPS])
            keys = [clip_key(clip) + "|silent" * ("silent" in keep) for clip in batch]
            known = journal.get(keys)
            opened = map_in_parts(
                threads,
                PARTS * workers,
                partial(_open, silent="silent" in keep),
                [clip for clip, values in zip(batch, known) if not isinstance(values, list)],
            )
            results = [AudioInfo(*values) if isinstance(values, list) else next(opened) for values in known]
            journal.put(
                [
                    (key, astuple(result))
                    for key, values, result in zip(keys, known, results)
                    if not isinstance(values, list) and isinstance(result, AudioInfo)
                ]
            )
            yield from (_check_plausible(clip, result, longest_s, keep) for clip, result in zip(batch, results))
    finally:
        threads.shutdown(cancel_futures=True)


def implausible(info: AudioInfo) -> set[str]:
    """What makes a decoded clip implausible: `silent`, `loud`, or nothing."""
    found = {"silent"} if info.highest - info.lowest < SILENCE else set()
    return found | {"loud"} if max(-info.lowest, info.highest) > LOUDEST else found


def _open(clip: Clip, silent: bool) -> AudioInfo | SkippedClip:
    try:
        return check_clip(clip.path, clip.start_s, clip.stop_s, silent)
    except AumError as error:
        return SkippedClip(str(clip.path), error.problem, error.fix, clip.start_s, clip.stop_s)


def _check_plausible(
    clip: Clip, result: AudioInfo | SkippedClip, longest_s: float | None, keep: Collection[str]
) -> AudioInfo | SkippedClip:
    """The result, unless length or level of the clip are implausible."""
    if isinstance(result, SkippedClip):
        return result
    reason = fix = ""
    if result.duration_s < SHORTEST_S:
        reason = (
            f"is too short: {1000 * result.duration_s:.3g} ms, one window of the frontend is {1000 * SHORTEST_S:g} ms"
        )
        fix = "remove it"
    elif longest_s is not None and result.duration_s > longest_s:
        reason = (
            f"lasts {result.duration_s:.1f} s, clips of this corpus no longer than {longest_s:g} s: "
            "it may be the whole video"
        )
        fix = "cut the clip out of it"
    elif "loud" in implausible(result) - set(keep):
        peak = max(-result.lowest, result.highest)
        reason = f"reaches {peak:.4g} times full scale: among others it would decide how all are normalised"
        fix = (
            "export it again within -1 to 1 (16-bit values: divide by 32768), or remove it; "
            "--set keep=loud keeps such clips"
        )
    return SkippedClip(str(clip.path), f"{clip.path} {reason}", fix, clip.start_s, clip.stop_s) if reason else result
