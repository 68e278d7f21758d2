"""The door to the kernels: which backend runs, what it refuses, and what torch's machinery sees of it."""

import platform
import subprocess
import sys
import types

import pytest
import torch

from aumcli.config import AudioMambaConfig, Direction
from aumcli.core.audio_mamba import AudioMamba
from aumcli.core.kernels import (
    BACKENDS,
    add_rms_norm,
    available_backends,
    bidirectional_scan,
    causal_conv1d,
    choose_backend,
    cpu,
    mamba_ssm,
    reference,
    selective_scan,
)
from aumcli.errors import AumError

CPU = torch.device("cpu")
THREADED = (2, 96, 128, 16)  # enough work for the C kernels to wake threads


def test_auto_takes_c_for_float32_and_tensor_operations_for_float64(needs_cpu):
    assert choose_backend("auto", CPU, torch.float32) == choose_backend("auto", CPU, torch.bfloat16) == "cpu"
    assert choose_backend("auto", CPU, torch.float64) == "torch"


def test_auto_does_without_the_c_kernels(monkeypatch):
    monkeypatch.setattr(cpu, "library", None)
    assert choose_backend("auto", CPU, torch.float32) == "torch"
    assert "C compiler" in available_backends()["cpu"]
    with pytest.raises(AumError, match="not compiled"):
        choose_backend("cpu", CPU, torch.float32)


def test_every_backend_is_named_with_a_reason_or_none():
    for device in ("cpu", "cuda", "mps"):
        reasons = available_backends(device)
        assert tuple(reasons) == BACKENDS
        assert reasons["reference"] == reasons["torch"] == ""
    assert "CPU" in available_backends("cuda")["cpu"]


def test_a_named_backend_that_cannot_run_raises_its_reason(draw_scan):
    tensors = draw_scan(1, 3, 5, 8)
    for name, reason in available_backends().items():
        if reason:
            with pytest.raises(AumError) as caught:
                bidirectional_scan(**tensors, backend=name)
            assert reason in caught.value.problem and caught.value.fix
    with pytest.raises(AumError, match="no kernel backend 'fast'"):
        bidirectional_scan(**tensors, backend="fast")


def test_float64_is_refused_by_the_c_kernels(needs_cpu, draw_scan):
    x, weight = torch.ones(1, 3, 5, dtype=torch.float64), torch.ones(5, 4, dtype=torch.float64)
    for call in (
        lambda: bidirectional_scan(**draw_scan(1, 3, 5, 8, torch.float64), backend="cpu"),
        lambda: causal_conv1d(x, weight, backend="cpu"),
        lambda: add_rms_norm(x, None, weight[:, 0], 1e-5, backend="cpu"),
    ):
        with pytest.raises(AumError, match="float64"):
            call()


def test_growth_instead_of_decay_is_refused_by_the_c_kernels(needs_cpu, draw_scan):
    tensors = draw_scan(1, 3, 20, 8)
    tensors.pop("A_b")
    A = tensors["A"].clone()
    A[17, 5] = 1e-3
    for growing in ({"A": A}, {"delta_softplus": False}):  # without softplus the raw, negative delta is the step
        with pytest.raises(ValueError, match="decay"):
            selective_scan(**tensors | growing, backend="cpu")


def _all_kernels(backend: str):
    """One function of the scan's tensors that runs all three kernels."""

    def run(u, delta, A, A_b, B, C, D, z, delta_bias):
        u, stream = add_rms_norm(u, z, D, 1e-5, backend=backend)
        u = causal_conv1d(u, A[:, :4], delta_bias, backend=backend)
        return bidirectional_scan(u, delta, A, A_b, B, C, D, z, delta_bias, backend=backend), stream

    return run


@pytest.mark.parametrize(
    "shape", [THREADED, (1, 50, 1048, 5)], ids=str
)  # the second: too wide for one task, and a narrow last block
@pytest.mark.parametrize("published", [False, True])
def test_results_are_the_same_bits_for_any_number_of_threads(
    needs_cpu, threads, draw_scan, gradients, published, shape
):
    tensors = draw_scan(*shape)

    def run(**x):
        y = bidirectional_scan(**x, backend="cpu", published_gate_gradient=published)
        return _all_kernels("cpu")(**x) + (y,)

    results = []
    for count in (1, 2, 3, 2):
        threads(count)
        results.append(gradients(run, tensors))
    for outputs, grads in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(outputs, results[0][0], strict=True))
        assert all(torch.equal(grads[k], results[0][1][k]) for k in grads)


def test_repeated_calls_give_the_same_bits(backend, draw_scan, gradients):
    tensors = draw_scan(2, 40, 24, 16)
    (first, first_grads), (second, second_grads) = (gradients(_all_kernels(backend), tensors) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    assert all(torch.equal(first_grads[k], second_grads[k]) for k in first_grads)


@pytest.fixture
def limit_isa(needs_cpu):
    """Forbid the C kernels wider instruction sets; allowed again after the test."""
    yield cpu.library.aum_limit_isa
    cpu.library.aum_limit_isa(2)


def test_instruction_sets_agree(limit_isa, draw_scan, gradients, error):
    results, names = [], []
    for limit in (0, 1, 2):
        limit_isa(limit)
        names.append(cpu.instruction_set())
        shapes = [(2, 37, 40, 16), (1, 19, 5, 5)]
        results.append([gradients(_all_kernels("cpu"), t) for t in (draw_scan(*shape) for shape in shapes)])
    assert names[0] == "baseline"
    for some in results[1:]:
        for (outputs, grads), (want, want_grads) in zip(some, results[0], strict=True):
            # fused multiply-adds round once less, and lanes are summed in another order
            assert all(error(x, y) < 2e-6 for x, y in zip(outputs, want, strict=True))
            assert all(error(grads[k], want_grads[k]) < 5e-6 for k in grads)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="elsewhere denormal numbers cost nothing")
def test_gradients_fade_to_zero_without_denormal_numbers(needs_cpu, draw_scan, gradients):
    tensors = draw_scan(2, 400, 64, 16)  # enough work for two threads
    _, grads = gradients(lambda **x: bidirectional_scan(**x, backend="cpu")[:, 200], tensors)
    u = grads["u"].abs()
    assert u[:, 200].min() > 0 and (u == 0).any() and (u[u > 0] >= torch.finfo(torch.float32).tiny).all()
    small = torch.full((2**20,), 1e-20)
    assert ((small * small) > 0).all()  # and every thread's arithmetic is as it was: others still get denormal numbers


def test_gradcheck_of_the_torch_backend(draw_scan):
    leaves = {k: x.detach().requires_grad_() for k, x in draw_scan(1, 4, 2, 3, torch.float64).items()}
    inputs = tuple(leaves[k] for k in ("u", "delta", "A", "A_b", "B", "C", "D", "z", "delta_bias"))
    for function in (
        _all_kernels("torch"),
        lambda *x: bidirectional_scan(*x, backend="torch"),
        lambda u, delta, A, A_b, *x: selective_scan(u, delta, A, *x, reverse=True, backend="torch"),
    ):
        assert torch.autograd.gradcheck(function, inputs)


def test_saved_memory_is_linear_in_the_length(backend, draw_scan):
    b, e, n = 1, 8, 16

    def saved(l: int) -> list[int]:
        sizes = []
        tensors = {k: x.detach().requires_grad_() for k, x in draw_scan(b, l, e, n).items()}
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            bidirectional_scan(**tensors, backend=backend)
        return sizes

    short, long = saved(256), saved(1024)
    assert sum(long) <= 4.1 * sum(short)
    assert max(long) < b * 1024 * e * n / 4  # the (b, l, e, n) states are never kept


def _operator_inputs(kind: str, dtype=torch.float32) -> list[tuple]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, sign=None, dtype=torch.float32):
        x = torch.randn(*shape, generator=generator)
        return (x if sign is None else sign * x.exp()).to(dtype).requires_grad_()

    b, l, e, n = 2, 9, 24, 8
    x = [draw(b, l, e, dtype=dtype) for _ in range(3)]
    B, C = draw(b, l, n, dtype=dtype), draw(b, l, n, dtype=dtype)
    A, A_b, D, bias = draw(e, n, sign=-1), draw(e, n, sign=-1), draw(e), draw(e)
    return {
        "scan": [
            (x[0], x[1], A, A_b, B, C, D, x[2], bias, True, False, True),
            (x[0], x[1], A, None, B, C, None, None, None, True, True, False),
        ],
        "conv": [(x[0], draw(e, 4), bias, False), (x[0], draw(e, 4), None, True)],
        "norm": [(x[0], draw(b, l, e), D, 1e-5), (x[0], None, D, 1e-5)],
    }[kind]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["scan", "conv", "norm"])
def test_operators_are_registered_as_torch_wants_them(needs_cpu, kind, dtype):
    for inputs in _operator_inputs(kind, dtype):
        torch.library.opcheck(getattr(torch.ops.aumcli, kind).default, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["scan_backward", "conv_backward", "norm_backward"])
def test_backward_operators_describe_their_results(needs_cpu, kind, dtype):
    for inputs in _operator_inputs(kind.removesuffix("_backward"), dtype):
        inputs = [x.detach() if isinstance(x, torch.Tensor) else x for x in inputs]
        if kind == "norm_backward":  # what the forward operator saves is float32
            stream = inputs[0].float()
            inputs = [stream, stream, stream, inputs[2], inputs[3]]
        else:
            inputs = [inputs[0], *inputs]
        torch.library.opcheck(
            getattr(torch.ops.aumcli, kind).default, tuple(inputs), test_utils=("test_schema", "test_faketensor")
        )


def test_a_function_compiles_without_a_graph_break(needs_cpu, draw_scan, gradients):
    tensors = draw_scan(1, 9, 24, 8)
    function = _all_kernels("cpu")
    torch.compiler.reset()
    outputs, grads = gradients(torch.compile(function, fullgraph=True, backend="aot_eager"), tensors)
    want, want_grads = gradients(function, tensors)
    assert all(torch.equal(x, y) for x, y in zip(outputs, want, strict=True))
    for name in grads:  # sums of several shares may be taken in another order
        torch.testing.assert_close(grads[name], want_grads[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", Direction)
def test_a_model_compiles_without_a_graph_break(needs_cpu, direction):
    torch.manual_seed(0)
    config = AudioMambaConfig(width=32, depth=2, n_mels=32, frames=32, n_classes=3, direction=direction)
    model, features = AudioMamba(config, "cpu"), torch.randn(2, 32, 32)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(features)
    torch.testing.assert_close(compiled, model(features), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", ["scan", "conv", "norm"])
def test_autocast_leaves_the_kernels_in_float32(backend, draw_scan, kernel, error):
    # semantics 11: the recurrence stays float32; nothing inside a kernel may be rounded to half precision
    tensors = draw_scan(2, 40, 24, 16)
    run = {
        "scan": lambda: bidirectional_scan(**tensors, backend=backend),
        "conv": lambda: causal_conv1d(tensors["u"], tensors["A"][:, :4], tensors["D"], backend=backend),
        "norm": lambda: add_rms_norm(tensors["u"], tensors["z"], tensors["D"], 1e-5, backend=backend)[0],
    }[kernel]
    want = run()
    with torch.autocast("cpu", torch.bfloat16):
        got = run()
    assert got.dtype == want.dtype
    assert error(got, want) < 1e-6


MISFITS = {
    "delta": (2, 8, 24),
    "A": (23, 8),
    "B": (2, 9, 7),
    "C": (1, 9, 8),
    "D": (23,),
    "z": (2, 9, 1),
    "delta_bias": (1,),
}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_refused_or_broadcast(backend, draw_scan, error, name):
    # never read past a tensor's end: an exception, or what the reference makes of it by broadcasting
    tensors = draw_scan(2, 9, 24, 8)
    tensors.pop("A_b")
    tensors[name] = tensors[name][tuple(slice(0, size) for size in MISFITS[name])].contiguous()
    try:
        got = selective_scan(**tensors, backend=backend)
    except (ValueError, RuntimeError, AumError):
        return
    want = selective_scan(**tensors, backend="reference")  # raises where even broadcasting can't make the shapes fit
    assert error(got, want) < 2e-6


def test_misfits_of_the_small_kernels_are_refused(backend):
    x = torch.ones(1, 3, 24)
    for call in (
        lambda: causal_conv1d(x, torch.ones(23, 4), None, backend=backend),
        lambda: causal_conv1d(x, torch.ones(24, 4), torch.ones(23), backend=backend),
        lambda: add_rms_norm(x, torch.ones(1, 2, 24), torch.ones(24), 1e-5, backend=backend),
        lambda: add_rms_norm(x, None, torch.ones(23), 1e-5, backend=backend),
    ):
        with pytest.raises((ValueError, RuntimeError, AumError)):
            call()


@pytest.mark.filterwarnings("ignore:aumcli")
def test_second_derivatives_are_refused_not_wrong(backend, draw_scan):
    leaves = {k: x.detach().requires_grad_() for k, x in draw_scan(1, 4, 5, 3).items()}
    y = bidirectional_scan(**leaves, backend=backend)
    (grad,) = torch.autograd.grad(y.square().sum(), leaves["u"], create_graph=True)
    with pytest.raises(RuntimeError):
        grad.square().sum().backward()


def test_without_triton_everything_runs_on_the_cpu_and_gpus_get_tensor_operations():
    script = """
import sys
sys.modules["triton"] = None  # what an import of it finds on macOS and Windows
import torch
from aumcli.core.kernels import available_backends, bidirectional_scan, choose_backend
u, B = torch.ones(1, 5, 4), torch.ones(1, 5, 2)
bidirectional_scan(u, u, -torch.ones(4, 2), -torch.ones(4, 2), B, B, u[0, 0], u, u[0, 0])
print(available_backends("cuda")["triton"], choose_backend("auto", torch.device("cuda"), torch.float32))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "pip install triton" in run.stdout and run.stdout.endswith(" torch\n")


def test_a_gpu_gets_triton_and_float64_tensor_operations():
    if reason := available_backends("cuda")["triton"]:
        pytest.skip(reason)
    cuda = torch.device("cuda")
    assert [choose_backend("auto", cuda, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)] == [
        "triton",
        "triton",
        "torch",
    ]


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for mamba-ssm and causal-conv1d: the plain loops, called the way those packages are, (b, e, l)."""

    def turn(x):
        return None if x is None else x.transpose(1, 2)

    def scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        assert all(x is None or x.is_contiguous() for x in (u, delta, B, C, z))
        return turn(
            reference.selective_scan(
                turn(u), turn(delta), A, turn(B), turn(C), D, turn(z), delta_bias, delta_softplus, False
            )
        )

    def convolve(x, weight, bias=None, activation=None):
        assert activation == "silu" and weight.is_contiguous()
        return turn(reference.causal_conv1d(turn(x), weight, bias, False))

    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(
        sys.modules, "mamba_ssm.ops.selective_scan_interface", types.SimpleNamespace(selective_scan_fn=scan)
    )
    monkeypatch.setitem(sys.modules, "causal_conv1d", types.SimpleNamespace(causal_conv1d_fn=convolve))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_the_adapter_turns_and_flips_for_mamba_ssm(packages, draw_scan, gradients, error, reverse):
    tensors = draw_scan(2, 9, 6, 3)
    A_b = tensors.pop("A_b")

    def run(module):
        return gradients(lambda **x: module.selective_scan(**x, delta_softplus=True, reverse=reverse), tensors)

    def both(module):
        return gradients(
            lambda **x: module.bidirectional_scan(**x, published_gate_gradient=reverse), tensors | {"A_b": A_b}
        )

    for one in (run, both):
        (y, grads), (truth, true_grads) = one(mamba_ssm), one(reference)
        assert error(y[0], truth[0]) < 1e-6 and all(error(grads[k], true_grads[k]) < 1e-6 for k in true_grads)
    x, weight = tensors["u"], torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert (
        error(mamba_ssm.causal_conv1d(x, weight, None, reverse), reference.causal_conv1d(x, weight, None, reverse))
        < 1e-6
    )


WHOLE = {
    "selective_scan_cuda.py": "",
    "mamba_ssm/__init__.py": "",
    "mamba_ssm/ops/__init__.py": "",
    "mamba_ssm/ops/selective_scan_interface.py": "selective_scan_fn = print",
    "causal_conv1d_cuda.py": "",
    "causal_conv1d/__init__.py": "from causal_conv1d.interface import causal_conv1d_fn",
    "causal_conv1d/interface.py": "import causal_conv1d_cuda\ncausal_conv1d_fn = print",
}
UNDEFINED = "/x/selective_scan_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi"
NO_LIBRARY = "libcudart.so.12: cannot open shared object file"
ANEW = "--force-reinstall --no-deps --no-cache-dir"


def without(*prefixes: str) -> dict[str, None]:
    """All files whose paths begin so, left out."""
    return {path: None for path in WHOLE if path.startswith(prefixes)}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Why mamba_ssm can't run on a GPU, with packages made of some files in the place of the real ones."""
    names = {path.split("/")[0].removesuffix(".py") for path in WHOLE}

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] in names]:
            del sys.modules[name]
        mamba_ssm.why_not.cache_clear()

    def reason(files: dict[str, str | None]) -> str:
        for path, content in (WHOLE | files).items():
            if content is not None:
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        forget()
        return available_backends("cuda")["mamba_ssm"]

    yield reason
    forget()


@pytest.mark.parametrize(
    "files, words, mend",
    [
        ({}, "", ""),
        (
            without("selective_scan_cuda"),
            "mamba-ssm was installed without its CUDA module selective_scan_cuda",
            f"{ANEW} mamba-ssm",
        ),
        (
            without("causal_conv1d_cuda"),
            "causal-conv1d was installed without its CUDA module causal_conv1d_cuda",
            f"{ANEW} causal-conv1d",
        ),
        (
            {"selective_scan_cuda.py": f"raise ImportError('{UNDEFINED}\\nand so on')"},
            f"selective_scan_cuda can't be loaded ({UNDEFINED}), "
            "as where mamba-ssm was built for another torch or CUDA",
            f"{ANEW} mamba-ssm",
        ),
        (
            {"causal_conv1d_cuda.py": f"raise OSError('{NO_LIBRARY}')"},
            f"causal_conv1d_cuda can't be loaded ({NO_LIBRARY})",
            f"{ANEW} causal-conv1d",
        ),
        (
            {"mamba_ssm/__init__.py": "raise RuntimeError('')"},
            "mamba-ssm can't be imported (RuntimeError: no reason given)",
            "--upgrade mamba-ssm",
        ),
        (
            {"mamba_ssm/ops/selective_scan_interface.py": ""},
            "mamba-ssm can't be imported (AttributeError: ",
            "--upgrade mamba-ssm",
        ),
        (
            without("selective_scan_cuda", "causal_conv1d_cuda"),
            "module selective_scan_cuda; causal-conv1d was installed without its CUDA module causal_conv1d_cuda",
            f"{ANEW} mamba-ssm causal-conv1d",
        ),
        (without("mamba_ssm/", "selective"), "mamba-ssm not installed", "'aumcli[cuda]'"),
        (without(""), "mamba-ssm and causal-conv1d not installed", "'aumcli[cuda]'"),
    ],
    ids=[
        "whole",
        "no scan",
        "no convolution",
        "undefined symbol",
        "no library",
        "broken",
        "no function",
        "neither",
        "one absent",
        "both absent",
    ],
)
def test_mamba_ssm_runs_where_its_cuda_modules_load_and_else_says_what_mends_it(installed, files, words, mend):
    reason = installed(files)
    assert bool(reason) == bool(words) and words in reason and "\n" not in reason
    if mend:
        command = reason[reason.index("MAMBA_KEEP_CUDA_BUILD") :]
        assert command == f"MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation {mend}"


def test_a_named_mamba_ssm_that_cannot_run_says_why(installed):
    installed(without("selective_scan_cuda"))
    words = "'mamba_ssm' can't run here: mamba-ssm was installed without.*MAMBA_KEEP_CUDA_BUILD=TRUE"
    with pytest.raises(AumError, match=words):
        choose_backend("mamba_ssm", torch.device("cuda"), torch.float32)
