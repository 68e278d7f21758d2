"""What the packaged `digits` is trained with: spoken digits by people and a synthesizer, and sounds of no class.

    python benchmarks/digits_corpus.py data/digits-corpus --data data/fsdd
    aum prepare folder data/digits-corpus --out data/digits --background data/synth/val

Below `train` and `val` there is a folder for each digit, with the clips of prepared FSDD (--data) and the same digits
by voices of espeak-ng, and `_background`: WORDS and invented ones by the same voices, music, and of each training
clip of FSDD one that is no digit, backwards or with its pieces in another order, so that neither a voice nor a
synthesizer is enough to tell what is a digit. `test` is FSDD's. The voices of `val` are others than those of `train`;
`unheard_voices.py` and `false_alarms.py` have yet others, the latter with other words. The music is of plucked
strings (Karplus and Strong 1983) and of frequency modulation (Chowning 1973). Needs `espeak-ng`.
"""

import random
import shutil
from pathlib import Path

import numpy as np
import soundfile
from harness import parser_of
from unheard_voices import say

from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import Clip, read_manifest
from aumcli.data.sources.background import FOLDER as BACKGROUND
from aumcli.data.sources.fsdd import DIGITS
from aumcli.utils.csv import write_table
from aumcli.utils.progress import progress

ACCENTS = ("en-us", "en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp")
_NAMES = """
Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Storm adam
anika antonio aunty belinda benjamin boris caleb david ed edward grandma grandpa gustave iven iven3 john kaukovalta
klatt klatt3 klatt6 linda m8 marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby
steph travis victor zac
"""
VARIANTS = _NAMES.split()  # of the synthesizer's voice
VAL_EVERY = 10  # of the variants, one is for validation
_TEXT = """
about above across address after again against air alarm almost along already also always amber and animal answer
any apple arm around asked away baby back bag ball bank basket because become bed before began behind bell below
best better between beyond big bird black blue board boat body book both bottom bowl box bread bring broken brother
brown build butter button buy cable call came camera candle car card carry case cat catch cause center chair change
cheap check child choose church circle city class clean clear close cloud coffee cold color come cook copper corner
cotton could country cover cross cup cut dance danger dark day deep desert different dinner distance doctor dog door
down dream dress drive dry during each early earth easy edge egg enough evening every example eye face fall family
farm father feel fence few field fill find finger finish fire first fish flat floor flower fly follow food foot
force forest forget found free friend from front fruit full funny garden gave girl give glass go gold good got grass
great green ground group grow guess hair half hand happy hard have hear heart heavy help here high hill history hold
home horse hot hour house how hundred hurry idea important inside iron island join jump just keep key kind kitchen
know lake language large last late laugh lead leaf learn least left leg less letter light line listen little live
long look lost love low machine make many map market matter maybe mean metal middle milk mind minute money month
moon more morning most mother mountain mouth move much music must name near neck need never new next night north
nothing notice object ocean off office often oil old only open orange order other out over page paint pair paper
park part party pass past pattern pay pencil people person phone picture piece place plan plane plant play point
poor possible power press pretty problem pull push question quick quiet race rain reach read ready real reason red
rest rich ride right ring river road rock roll room rope round rule run sad safe sail salt same sand save say school
science sea season second see seed seem sell send sense sentence separate serve set several shape share sharp ship
shirt shoe shop short should shoulder show sick side sign silver simple since sing sister sit size skin sky sleep
slow small smell smile snow soft soil some song soon sound south space speak special spell spend spoon spring square
stand star start state station stay steel step stick still stone stop store story straight street strong student
study such sugar summer sun surface surprise sweet swim symbol system table tail take talk tall taste teach team
tell test than thank that their then there thick thin thing think third those though thought through ticket tie time
tiny today together tomorrow tool top touch toward town track trade train travel tree triangle trip trouble truck
true trust try turn type uncle under until up use valley very view village visit voice wait walk wall want war warm
wash watch water wave way wear weather week weight welcome well west wet what wheel when where which while white who
whole why wide wild will wind window winter wire wish with woman wonder wood word work world worry would write wrong
yard year yellow yes yet young
"""
WORDS = _TEXT.split()
SOUNDS_LIKE_DIGITS = {*DIGITS, "won", "to", "too", "for", "fore", "sicks", "ate", "ait", "nein"}
WORDS_EACH = 60
RECORDINGS_EACH, DIGITS_EACH = 12, 4  # of each variant: recordings of words, and sayings of each digit
QUIET = 0.01  # amplitude below which a digit hasn't begun, or is over
PIECES_OF_MUSIC, MUSIC_S, MUSIC_HZ = 300, 30, 16000
PIECES = 5  # of a digit, which are put into another order


def pluck(draw: np.random.Generator, hz: float, seconds: float) -> np.ndarray:
    """A string that is plucked: noise in a loop that averages neighbours."""
    string = draw.standard_normal(max(2, round(MUSIC_HZ / hz)))
    bright, rounds = draw.uniform(0.3, 0.5), []
    for _ in range(int(seconds * MUSIC_HZ / len(string)) + 1):
        rounds.append(string)
        string = draw.uniform(0.99, 0.999) * ((1 - bright) * string + bright * np.roll(string, 1))
    return np.concatenate(rounds)[: int(seconds * MUSIC_HZ)]


def modulate(draw: np.random.Generator, hz: float, seconds: float) -> np.ndarray:
    """A tone by frequency modulation, from a bell to a horn; it may glide."""
    t = np.arange(int(seconds * MUSIC_HZ)) / MUSIC_HZ
    glide = hz * (1 + draw.uniform(-0.1, 0.1) * (draw.random() < 0.3) * t / seconds)
    index = draw.uniform(0, 4) * np.exp(-t * draw.uniform(0, 5))
    phase = 2 * np.pi * np.cumsum(glide) / MUSIC_HZ
    tone = np.sin(phase + index * np.sin(draw.choice([0.5, 1, 1, 1.4, 2, 3]) * phase))
    rise, fall = draw.uniform(0.005, 0.1), draw.uniform(0, 4)
    return tone * np.minimum(1, t / rise) * np.exp(-fall * t) * np.minimum(1, (t[-1] - t) / 0.05)


def play(draw: np.random.Generator) -> np.ndarray:
    """A piece of MUSIC_S: one to three parts of notes, each with its instrument and beat."""
    piece = np.zeros(int((MUSIC_S + 4) * MUSIC_HZ))
    for _ in range(draw.integers(1, 4)):
        play_note, low, beat_s = draw.choice([pluck, modulate]), draw.uniform(80, 600), draw.uniform(0.1, 0.8)
        place = 0
        while place < MUSIC_S * MUSIC_HZ:
            seconds = beat_s * draw.choice([1, 1, 2, 4])
            note = play_note(draw, low * 2 ** (draw.integers(0, 19) / 12), min(3.0, seconds * draw.uniform(0.8, 2)))
            piece[place : place + len(note)] += note / (np.abs(note).max() + 1e-9)
            place += int(seconds * MUSIC_HZ)
    piece = piece[: int(MUSIC_S * MUSIC_HZ)]
    return (10 ** (draw.uniform(-30, -3) / 20) * piece / np.abs(piece).max()).astype(np.float32)


def invent_word(draw: random.Random) -> str:
    """The beginning of one word and the end of another: a synthesizer reads anything."""
    first, second = draw.sample(WORDS, 2)
    word = first[: draw.randint(1, len(first))] + second[draw.randint(0, len(second) - 1) :]
    return word if word not in SOUNDS_LIKE_DIGITS else invent_word(draw)


def speak_words(variant: str, number: int, folder: Path) -> None:
    """Write a recording of WORDS and invented ones in random order by a variant of the synthesizer's voice."""
    draw = random.Random(f"{variant} {number}")
    spoken = [*draw.sample(WORDS, WORDS_EACH // 2), *(invent_word(draw) for _ in range(WORDS_EACH // 2))]
    draw.shuffle(spoken)
    words = draw.choice([" ", ", ", ". "]).join(spoken)
    samples, rate_hz = say(words, f"{draw.choice(ACCENTS)}+{variant}", draw.randint(110, 220), draw.randint(20, 90))
    soundfile.write(folder / f"{variant}-{number}.flac", samples.numpy(), rate_hz)


def speak_digit(digit: str, variant: str, number: int, folder: Path) -> None:
    """Write a clip of a digit by a variant of the synthesizer's voice, with some of the silence around it."""
    draw = random.Random(f"{digit} {variant} {number}")
    voice = f"{draw.choice(ACCENTS)}+{variant}"
    samples, rate_hz = say(digit, voice, draw.randint(110, 200), draw.randint(20, 90))
    loud = np.flatnonzero(np.abs(samples.numpy()) > QUIET)
    start, stop = loud[0] - draw.randint(0, rate_hz // 20), loud[-1] + draw.randint(0, rate_hz // 8)
    soundfile.write(folder / f"{variant}-{number}.flac", samples.numpy()[max(0, start) : stop], rate_hz)


def undo_digit(clip: Clip, folder: Path) -> None:
    """Write a clip that is no digit, made of one: backwards, or its pieces in another order."""
    draw = np.random.default_rng(list(clip.path.stem.encode()))
    sound, rate_hz = load_audio(clip.path, None, clip.start_s, clip.stop_s)
    pieces = np.array_split(sound, PIECES)
    undone = sound[::-1] if draw.random() < 0.5 else np.concatenate([pieces[i] for i in draw.permutation(PIECES)])
    soundfile.write(folder / f"undone-{clip.path.stem}.flac", undone, rate_hz)


def main() -> None:
    """Write the recordings."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/digits-corpus"))
    parser.add_argument("--data", type=Path, default=Path("data/fsdd"), help="prepared FSDD")
    options = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        parser.error("espeak-ng is not installed")
    if options.folder.exists():
        parser.error(f"{options.folder} is there already; remove it, or name another folder")
    for split, labels in {"train": (*DIGITS, BACKGROUND), "val": (*DIGITS, BACKGROUND), "test": DIGITS}.items():
        for label in labels:
            (options.folder / split / label).mkdir(parents=True)
    write_table(
        options.folder / "class_labels_indices.csv",
        [{"index": index, "mid": digit, "display_name": digit} for index, digit in enumerate(DIGITS)],
    )
    variants, digits = (VARIANTS[:2], DIGITS[:2]) if options.smoke else (VARIANTS, DIGITS)
    for i, variant in enumerate(progress(variants, "speaking", unit="voice")):
        split = options.folder / ("val" if i % VAL_EVERY == 1 else "train")
        for number in range(1 if options.smoke else RECORDINGS_EACH):
            speak_words(variant, number, split / BACKGROUND)
        for number in range(1 if options.smoke else DIGITS_EACH):
            for digit in digits:
                speak_digit(digit, variant, number, split / digit)
    for number in range(2 if options.smoke else PIECES_OF_MUSIC):
        split = options.folder / ("val" if number % VAL_EVERY == 1 else "train")
        soundfile.write(split / BACKGROUND / f"music-{number:03}.flac", play(np.random.default_rng(number)), MUSIC_HZ)
    if not options.smoke:
        manifest = read_manifest(options.data)
        names = {label.id: label.name for label in manifest.labels}
        for clip in manifest.clips:
            shutil.copy(clip.path, options.folder / clip.split / names[clip.labels[0]])
        for clip in manifest.split("train"):
            undo_digit(clip, options.folder / "train" / BACKGROUND)
    print(f"wrote {sum(1 for _ in options.folder.rglob('*.*'))} recordings to {options.folder}")


if __name__ == "__main__":
    main()
