"""Models from somebody who means harm: refused in one sentence, nothing executed, little memory taken."""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aumcli.checkpoints import save_model
from aumcli.checkpoints.tensors import ALLOWED, read_tensors
from aumcli.config import AudioMambaConfig, FrontendConfig, ModelConfig
from aumcli.core.audio_mamba import AudioMamba
from aumcli.errors import AumError

# beyond what importing torch and reading the honest model take; the largest honest answer: errors of 4 MiB of JSON
MOST_MIB = 250
HUGE = 10**9


def rewrite(folder: Path, **changes) -> None:
    """Change values of config.json; a key `a__b` is `b` in `a`."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key, value in changes.items():
        *outer, name = key.split("__")
        (values[outer[0]] if outer else values)[name] = value
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def header(folder: Path, change=None, length: int | None = None, padding: int = 0) -> None:
    """Change the header of the weights, or say another length of it."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + size])
    if change:
        change(about)
    text = json.dumps(about).encode() + b" " * padding
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data[8 + size :])


def tensors(folder: Path, change) -> None:
    """Change the weights themselves."""
    save_file(
        {name: x.contiguous() for name, x in change(load_file(folder / "model.safetensors")).items()},
        folder / "model.safetensors",
    )


def instead(folder: Path, name: str, make) -> None:
    """Put something else in a file's place."""
    (folder / name).unlink()
    make(folder / name)


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**30)


def offsets(name: str, start: int, end: int):
    return lambda about: about[name].update(data_offsets=[start, end])


ATTACKS = {
    "header longer than the file": (lambda f: header(f, length=10**7), "header"),
    "header of 2 ** 63 bytes": (lambda f: header(f, length=2**63), "header"),
    "header of 2 MiB": (lambda f: header(f, padding=2**21), "header"),
    "offsets beyond the file": (lambda f: header(f, offsets("head.bias", 0, HUGE)), "can't read"),
    "offsets that overlap": (
        lambda f: header(
            f, lambda about: about["head.bias"].update(data_offsets=[x - 4 for x in about["head.bias"]["data_offsets"]])
        ),
        "can't read",
    ),
    "offsets backwards": (lambda f: header(f, offsets("head.bias", 12, 0)), "can't read"),
    "a shape larger than its bytes": (
        lambda f: header(f, lambda about: about["head.bias"].update(shape=[HUGE])),
        "can't read",
    ),
    "a shape beyond 64 bits": (
        lambda f: header(f, lambda about: about["head.bias"].update(shape=[2**40, 2**40])),
        "can't read",
    ),
    "integers for weights": (
        lambda f: tensors(f, lambda t: {**t, "head.bias": torch.zeros(3, dtype=torch.int64)}),
        "head.bias",
    ),
    "cut off": (lambda f: os.truncate(f / "model.safetensors", 2000), "can't read"),
    "NaN": (
        lambda f: tensors(f, lambda t: {**t, "cls_token": t["cls_token"] * float("nan")}),
        "NaN or infinite values in cls_token",
    ),
    "infinite": (
        lambda f: tensors(f, lambda t: {**t, "head.bias": t["head.bias"] + float("inf")}),
        "NaN or infinite values in head.bias",
    ),
    "a block larger than the first": (
        lambda f: tensors(
            f, lambda t: {name: torch.zeros(1) if name.startswith("layers.1.") else x for name, x in t.items()}
        ),
        "layers.1.",
    ),
    "classes": (lambda f: rewrite(f, model__n_classes=HUGE), "1000000000"),
    "depth": (lambda f: rewrite(f, model__depth=HUGE), "1,000,000,000 blocks"),
    "width": (lambda f: rewrite(f, model__width=HUGE), "doesn't fit"),
    "width beyond 64 bits": (lambda f: rewrite(f, model__width=16 * 10**30), "doesn't fit"),
    "states": (lambda f: rewrite(f, model__state_size=HUGE), "state_size"),
    "taps": (lambda f: rewrite(f, model__conv_kernel=HUGE), "doesn't fit"),
    "expand": (lambda f: rewrite(f, model__expand=HUGE), "doesn't fit"),
    "frames": (lambda f: rewrite(f, model__frames=16 * HUGE, frontend__frames=16 * HUGE), "doesn't fit"),
    "sample rate": (lambda f: rewrite(f, frontend__sample_rate_hz=HUGE), "too much memory"),
    "window": (lambda f: rewrite(f, frontend__window_ms=1e12), "too much memory"),
    "FFT": (lambda f: rewrite(f, frontend__fft_size=HUGE), "too much memory"),
    "another architecture": (
        lambda f: instead(
            f,
            "config.json",
            lambda path: path.write_text(
                json.dumps(
                    {
                        "format": 1,
                        "model": {
                            "architecture": "ast",
                            "width": 16,
                            "depth": 2,
                            "heads": 4,
                            "mlp_width": HUGE,
                            "n_classes": 3,
                            "n_mels": 32,
                            "frames": 48,
                        },
                        "frontend": {"n_mels": 32, "frames": 48},
                        "labels": list("abc"),
                        "activation": "softmax",
                    }
                )
            ),
        ),
        "doesn't fit",
    ),
    "a config of 1 GiB": (lambda f: sparse(f / "config.json"), "bytes"),
    "nested JSON": (lambda f: (f / "config.json").write_text("[" * 10**6), "config.json is damaged"),
    "an endless number": (lambda f: (f / "config.json").write_text("9" * 10**6), "config.json is damaged"),
    "a million wrong labels": (lambda f: rewrite(f, labels=[1] * 10**6), "labels.0"),
    "a link to an endless device": (
        lambda f: instead(f, "model.safetensors", lambda p: p.symlink_to("/dev/zero")),
        "no regular file",
    ),
    "a link to itself": (lambda f: instead(f, "model.safetensors", lambda p: p.symlink_to(p)), "can't read"),
    "a link to nothing": (
        lambda f: instead(f, "model.safetensors", lambda p: p.symlink_to("nowhere")),
        "does not exist",
    ),
    "a pipe": (lambda f: instead(f, "model.safetensors", os.mkfifo), "no regular file"),
    "a folder": (lambda f: instead(f, "model.safetensors", os.mkdir), "no regular file"),
    "a config that is an endless device": (
        lambda f: instead(f, "config.json", lambda p: p.symlink_to("/dev/zero")),
        "no regular file",
    ),
    "a config that is a pipe": (lambda f: instead(f, "config.json", os.mkfifo), "no regular file"),
    "a config linked to itself": (lambda f: instead(f, "config.json", lambda p: p.symlink_to(p)), "can't read"),
    # last, since a peak hides what later attacks take below it
    "many unknown keys": (lambda f: rewrite(f, **{f"key{i}": 0 for i in range(2 * 10**5)}), "config.json is damaged"),
}
READ = """
import json, resource, sys
from aumcli.errors import AumError
from aumcli.checkpoints import read_model
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
read_model(sys.argv[1])
results = {}
for folder in sys.argv[2:]:
    before = peak()
    try:
        read_model(folder)
        problem = None
    except AumError as error:
        problem = error.problem
    results[folder] = problem, peak() - before
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, tuple[str | None, int]]:
    """attack -> (what was said, by how many MiB the peak of the memory rose), all in one process."""
    root = tmp_path_factory.mktemp("attacks")
    model = AudioMambaConfig(width=16, depth=2, n_classes=3, n_mels=32, frames=48, state_size=4)
    config = ModelConfig(
        model=model, frontend=FrontendConfig(n_mels=32, frames=48), labels=("a", "b", "c"), activation="softmax"
    )
    weights = AudioMamba(model).state_dict()
    folders = {name: root / str(number) for number, name in enumerate(ATTACKS)}
    for folder in (root / "honest", *folders.values()):
        save_model(folder, weights, config)
    for name, (attack, _) in ATTACKS.items():
        attack(folders[name])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(root / "honest"), *map(str, folders.values())],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return {name: tuple(told[str(folder)]) for name, folder in folders.items()}


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes")
@pytest.mark.parametrize("name", ATTACKS)
def test_refused_with_little_memory(results, name):
    problem, mebibytes = results[name]
    assert problem is not None, "it was loaded"
    assert ATTACKS[name][1] in problem and len(problem) < 500
    assert mebibytes < MOST_MIB


# What stands beside the weights in a .pth: the trainer's options, an argparse.Namespace, and what somebody puts there

WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3)}
DEEP = 10**4  # ten times what recursion would bear


class Options(argparse.Namespace):
    """A class of somebody's own, which reading would have to import."""


class Calls:
    """Is pickled as the call of a function, which builds the object with a state then."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def crafted(path: Path, pickled: bytes) -> None:
    """A file of torch.save with another pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)


def nothing_stays_allowed() -> bool:
    return not set(ALLOWED) & set(torch.serialization.get_safe_globals())


def namespaces(levels: int) -> bytes:
    """The opcodes of a Namespace in a Namespace in a Namespace."""
    return b"cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00a" * levels + b"N" + b"sb" * levels


@pytest.mark.parametrize("zipped", [True, False])
def test_options_beside_the_weights_are_passed_over(tmp_path, zipped):
    options = argparse.Namespace(lr=1e-3, layers=[1, (2, 3)], nested=argparse.Namespace(name="vim", model=WEIGHTS))
    content = {"model": WEIGHTS, "epoch": 299, "args": options}
    torch.save(content, tmp_path / "vim.pth", _use_new_zipfile_serialization=zipped)
    read = read_tensors(tmp_path / "vim.pth")
    assert read.keys() == WEIGHTS.keys() and torch.equal(read["head.weight"], WEIGHTS["head.weight"])
    assert nothing_stays_allowed()


STATES = {
    "names of the class": {"__class__": torch.Size, "__dict__": {}, "__init__": torch.Size, "__doc__": "x"},
    "a function to set the state": {"__setstate__": torch.Size},
    "no dictionary": [1, 2],
    "slots": ({"a": 1}, {"__class__": torch.Size}),
    "slots that are none": ({}, 5),
    "a tensor": torch.ones(2),
    "numbers for names": {1: 2},
    "itself": {},
}


@pytest.mark.parametrize("state", STATES)
def test_a_weird_state_of_the_options_changes_nothing(tmp_path, state):
    values = STATES[state]
    options = Calls(argparse.Namespace, state=values)
    if state == "itself":
        values["again"] = options
    before = dict(vars(argparse.Namespace))
    torch.save({"model": WEIGHTS, "args": options}, tmp_path / "weird.pth")
    read = read_tensors(tmp_path / "weird.pth")
    assert list(read) == list(WEIGHTS) and all(type(x) is torch.Tensor for x in read.values())
    assert dict(vars(argparse.Namespace)) == before


def as_tensor(kind: type, state: object) -> Calls:
    """A "tensor" of another class, which torch would build by calling that class."""
    return Calls(torch._tensor._rebuild_from_type_v2, kind, kind, (), state)


@pytest.mark.parametrize(
    "name, make, words",
    [
        ("another class within", lambda f: {"args": argparse.Namespace(out=pathlib.PurePosixPath("x"))}, "not opened"),
        ("a command within", lambda f: {"args": argparse.Namespace(x=Calls(os.mkdir, str(f)))}, "not opened"),
        ("a class derived from it", lambda f: {"args": Options(lr=1)}, "not opened"),
        ("derived, by a call", lambda f: {"args": Calls(Options)}, "not opened"),
        ("a parser", lambda f: {"args": Calls(argparse.ArgumentParser)}, "not opened"),
        ("what opens files", lambda f: {"args": Calls(argparse.FileType, "w")}, "not opened"),
        ("arguments for it", lambda f: {"args": Calls(argparse.Namespace, "x")}, "no file of torch.save"),
        (
            "as a tensor",
            lambda f: {"model": {"x": as_tensor(argparse.Namespace, {"__class__": torch.Size})}},
            "state dict",
        ),
        ("for the weights", lambda f: {"model": argparse.Namespace(**WEIGHTS)}, "state dict"),
        ("for a weight", lambda f: {"model": WEIGHTS | {"head.bias": argparse.Namespace()}}, "state dict"),
        ("with the weights in it", lambda f: {"model": None, "args": argparse.Namespace(model=WEIGHTS)}, "state dict"),
        ("alone", lambda f: argparse.Namespace(model=WEIGHTS), "state dict"),
    ],
)
def test_options_that_are_none_are_refused(tmp_path, name, make, words):
    content = make(tmp_path / "harmed")
    torch.save({"model": WEIGHTS} | content if isinstance(content, dict) else content, tmp_path / "bad.pth")
    with pytest.raises(AumError, match=words) as caught:
        read_tensors(tmp_path / "bad.pth")
    assert len(caught.value.problem) < 500 and not (tmp_path / "harmed").exists()
    assert nothing_stays_allowed()


@pytest.mark.parametrize(
    "name, pickled, words",
    [
        ("a name within the module", b"\x80\x02cargparse\nNamespace.__init__\n.", "not opened"),
        ("a name behind the module", b"\x80\x02cargparse._sys\nexit\n.", "not opened"),
        ("made with arguments", b"\x80\x02cargparse\nNamespace\nK\x01\x85\x81.", "no file of torch.save"),
        ("state for the class", b"\x80\x02cargparse\nNamespace\n}X\x01\x00\x00\x00aK\x01sb.", "not opened"),
        ("deeply nested", b"\x80\x02" + namespaces(DEEP) + b".", "state dict"),
    ],
)
def test_pickles_made_by_hand_are_refused(tmp_path, name, pickled, words):
    crafted(tmp_path / "bad.pth", pickled)
    with pytest.raises(AumError, match=words):
        read_tensors(tmp_path / "bad.pth")
    assert not hasattr(argparse.Namespace, "a")


def test_threads_do_not_take_the_leave_from_each_other(tmp_path):
    torch.save({"model": WEIGHTS, "args": [argparse.Namespace(number=i) for i in range(200)]}, tmp_path / "vim.pth")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: read_tensors(tmp_path / "vim.pth"), range(40)))
    assert all(list(each) == list(WEIGHTS) for each in read) and nothing_stays_allowed()
