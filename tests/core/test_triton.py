"""The Triton kernels: run by the interpreter without a GPU, compiled for several, and on a GPU where there is one."""

import functools
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aumcli.core.kernels import add_rms_norm, available_backends, bidirectional_scan, causal_conv1d, selective_scan

triton = pytest.importorskip("triton", reason="Triton is not installed: it exists for Linux alone")

TESTS = Path(__file__).parents[1]
# compute capability -> 32-bit registers and bytes of shared memory of a multiprocessor, warps it holds (CUDA guide,
# table 27)
GPUS = {80: (65536, 167936, 64), 90: (65536, 233472, 64), 100: (65536, 233472, 64)}


def test_the_interpreter_gives_the_references_outputs_and_gradients():
    """test_kernels.py, run again with the Triton kernels in place of those in C; in two halves, since it is slow."""
    halves = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pytest",
                "core/test_kernels.py",
                "-k",
                f"triton and {names}",
                "--rootdir",
                TESTS.parent,
            ],
            cwd=TESTS,
            env=os.environ | {"TRITON_INTERPRET": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for names in ("selective", "not selective")
    ]
    reports = [half.communicate()[0] for half in halves]
    for half, report in zip(halves, reports):
        assert half.returncode == 0 and "skipped" not in report, report[-5000:]
    assert sum(int(re.search(r"(\d+) passed", report)[1]) for report in reports) > 100


FLOATS = {
    "A",
    "A_b",
    "D",
    "bias",
    "ends",
    "totals",
    "starts",
    "partial",
    "states",
    "adjoints",
    "ddelta",
    "dA",
    "dB",
    "dC",
    "dD",
    "weight",
    "dweight",
    "dbias",
    "residual",
    "total",
    "grad_sum",
}
TYPES = {"fp32": "*fp32", "bf16": "*bf16", "fp16": "*fp16"}


def _kernels() -> dict[str, tuple]:
    """Every kernel as AuM-B launches it: (function, its compile-time arguments, warps)."""
    from aumcli.core.kernels import triton_conv, triton_norm, triton_scan

    both, has = dict(both=True, reverse=False), dict(has_bias=True, has_z=True, softplus=True)
    strip = dict(N=16, E=triton_scan.WIDTH)
    tile = dict(T=triton_scan.TILE, E=triton_scan.TILE_WIDTH)
    conv = dict(reverse=False, has_bias=True, K=4, T=triton_conv.TILE, E=triton_conv.WIDTH)
    one_way = dict(both=False, reverse=True)
    return {
        "scan ends": (triton_scan._ends, both | has | strip | dict(adjoint=False), 2),
        "scan adjoint ends": (triton_scan._ends, both | has | strip | dict(adjoint=True), 2),
        "scan carry": (triton_scan._carry, both | strip | dict(adjoint=False), 2),
        "scan outputs": (triton_scan._outputs, both | has | strip | dict(has_start=True, has_D=True), 2),
        "scan outputs, one way": (triton_scan._outputs, one_way | has | strip | dict(has_start=True, has_D=True), 2),
        "scan gradients": (triton_scan._gradients, both | has | tile | dict(published=False, has_D=True), 1),
        "scan gradients, published": (triton_scan._gradients, both | has | tile | dict(published=True, has_D=True), 1),
        "scan gradients, one way": (
            triton_scan._gradients,
            one_way | has | tile | dict(published=False, has_D=True),
            1,
        ),
        "convolution": (triton_conv._forward, conv, 4),
        "convolution backward": (triton_conv._backward, conv, 4),
        "norm": (triton_norm._forward, dict(has_residual=True, D=1024), triton_norm._warps(768)),
        "norm backward": (
            triton_norm._backward,
            dict(has_grad_sum=True, R=triton_norm.ROWS, D=1024),
            triton_norm._warps(768),
        ),
    }


def _resources(name: str, capability: int, dtype: str, folder: Path) -> dict[str, int]:
    """Compile a kernel and read what it takes off its machine code."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from aumcli.core.kernels import triton_common

    function, constants, warps = _kernels()[name]
    places = {arg: (i,) for i, arg in enumerate(function.arg_names)}
    kind = {arg: "constexpr" if arg in constants else "fp32" if arg == "eps" else "i32" for arg in places}
    for arg in places:
        if kind[arg] != "i32":
            continue
        if arg in FLOATS:
            kind[arg] = "*fp32"
        elif arg in {"u", "delta", "z", "B", "C", "grad", "du", "dz", "out", "x", "dx"}:
            kind[arg] = TYPES[dtype]
    aligned = {place: [["tt.divisibility", 16]] for arg, place in places.items() if kind[arg].startswith("*")}
    source = ASTSource(function, kind, {places[arg]: value for arg, value in constants.items()}, aligned)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps} | triton_common.OPTIONS
    )
    binary = folder / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)} | {"WARPS": warps}


def _occupancy(used: dict[str, int], capability: int) -> float:
    """Share of a multiprocessor's warps that registers and shared memory allow.

    Registers are given out 8 a thread, shared memory 1 KiB a block more.
    """
    registers, shared, most = GPUS[capability]
    blocks = min(registers // (-(-used["REG"] // 8) * 8 * 32 * used["WARPS"]), shared // (used["SHARED"] + 1024), 32)
    return min(blocks * used["WARPS"], most) / most


@pytest.mark.parametrize("capability, dtype", [*itertools.product(GPUS, ("fp32", "bf16")), (90, "fp16")])
def test_every_kernel_compiles_without_spills(capability, dtype, tmp_path, record_property):
    for name in _kernels():
        used = _resources(name, capability, dtype, tmp_path)
        used["OCCUPANCY"] = round(_occupancy(used, capability), 3)
        record_property(name, str(used))
        print(f"sm_{capability} {dtype} {name}: {used}")
        assert used["STACK"] == used["LOCAL"] == 0, f"{name} keeps {used} outside registers"
        assert used["OCCUPANCY"] >= 0.12, f"{name}: {used}"


needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or bool(available_backends("cuda")["triton"]), reason="needs a GPU"
)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", ["triton", "mamba_ssm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "shape", [(2, 1, 5, 16), (2, 17, 24, 8), (1, 513, 1536, 16), (4, 500, 100, 16), (1, 4097, 64, 16)], ids=str
)
def test_a_gpu_gives_the_references_outputs_and_gradients(backend, dtype, shape, draw_scan, gradients, error):
    if reason := available_backends("cuda")[backend]:
        pytest.skip(reason)
    drawn = draw_scan(*shape, dtype)
    bound = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
    one_way = {k: x for k, x in drawn.items() if k != "A_b"}
    for function, tensors in ((bidirectional_scan, drawn), (functools.partial(selective_scan, reverse=True), one_way)):
        wide = {k: x.double().cuda() for k, x in tensors.items()}
        outputs, grads = gradients(lambda **x: function(**x, backend="torch"), wide)  # held to the reference elsewhere
        got, got_grads = gradients(
            lambda **x: function(**x, backend=backend), {k: x.cuda() for k, x in tensors.items()}
        )
        assert error(got[0], outputs[0]) <= bound[dtype]
        for name, grad in got_grads.items():
            assert error(grad, grads[name]) <= bound[grad.dtype], name


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_convolves_and_normalises_like_the_reference(gradients, error):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((2, 65, 100), (100, 4), (100,)))
    residual, scale = torch.randn(2, 65, 100, generator=generator), torch.randn(100, generator=generator)

    def move(x, dtype):
        return None if x is None else x.to("cuda", dtype)

    for function, tensors in (
        (causal_conv1d, dict(x=x, weight=weight, bias=bias)),
        (functools.partial(causal_conv1d, reverse=True), dict(x=x, weight=weight, bias=None)),
        (functools.partial(add_rms_norm, eps=1e-5), dict(x=x, residual=residual, weight=scale)),
    ):
        outputs, grads = gradients(
            lambda **x: function(**x, backend="reference"), {k: move(x, torch.float64) for k, x in tensors.items()}
        )
        got, got_grads = gradients(
            lambda **x: function(**x, backend="triton"), {k: move(x, torch.float32) for k, x in tensors.items()}
        )
        assert all(error(mine, true) <= 1e-5 for mine, true in zip(got, outputs, strict=True))
        assert all(error(got_grads[name], grads[name]) <= 1e-5 for name in grads)


@pytest.mark.gpu
@needs_gpu
def test_a_gpus_backward_pass_gives_the_same_bits_twice(draw_scan, gradients):
    tensors = {k: x.cuda() for k, x in draw_scan(2, 513, 200, 16).items()}
    one, two = (gradients(lambda **x: bidirectional_scan(**x, backend="triton"), tensors) for _ in range(2))
    assert torch.equal(one[0][0], two[0][0]) and all(torch.equal(one[1][k], two[1][k]) for k in one[1])
