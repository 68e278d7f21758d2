"""Every backend against the plain loops in float64: outputs and each input's gradient.

Errors are distances over norms (the fixture `error`). Tolerances, unless a test says otherwise:

- float64 (torch): 1e-12; a few hundred roundings of 1e-16, far below any mistake in the mathematics.
- float32 forward: 2e-6; the recurrence forgets, so roundings of 6e-8 add up over some tens of steps at most.
- float32 gradients: 5e-6; the same, through the forward pass and back, plus sums over all tokens (A, D, bias).
- bfloat16: 2^-8; half of it is the rounding of the result to 8 bits, and inputs are equal on both sides. Triton's
  interpreter cuts the bits off instead of rounding, which is twice the error: 2^-7.
"""

import itertools

import pytest
import torch

from aumcli.core.kernels import add_rms_norm, available_backends, bidirectional_scan, causal_conv1d, selective_scan

OPERATORS = "cpu" if available_backends()["triton"] else "triton"  # as in conftest.py
# (b, l, e, n): lengths about the chunks of 24, 32 and 48 tokens, widths that are no multiple of 16, one too wide for
# one task; states of 16, 8, 5
SHAPES = [
    (2, 1, 5, 16),
    (2, 2, 24, 8),
    (3, 3, 1, 5),
    (2, 15, 40, 16),
    (1, 16, 24, 5),
    (2, 17, 16, 8),
    (2, 24, 40, 16),
    (1, 25, 5, 8),
    (1, 31, 5, 5),
    (2, 48, 24, 8),
    (1, 49, 1048, 5),
    (2, 63, 24, 16),
    (1, 500, 5, 16),
    (1, 513, 40, 8),
    (1, 4097, 17, 5),
]
SHORT, MEDIUM = (2, 17, 24, 5), (1, 100, 40, 16)
if OPERATORS == "triton":  # the interpreter takes milliseconds for a token; chunks have 80 forward, 16 backward
    SHAPES = [
        (2, 1, 5, 16),
        (2, 2, 24, 8),
        (3, 3, 1, 5),
        (1, 15, 40, 8),
        (1, 16, 24, 5),
        (2, 17, 16, 8),
        (1, 63, 24, 16),
        (1, 241, 5, 2),
    ]
    SHORT, MEDIUM = (1, 17, 17, 3), (1, 65, 24, 4)
OPTIONS = ("D", "z", "delta_bias", "delta_softplus")
OUTPUT, GRADIENT = (
    {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-8},
    {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 2**-8 if OPERATORS == "cpu" else 2**-7},
)


@pytest.fixture(
    params=[("torch", torch.float64), ("torch", torch.float32), (OPERATORS, torch.float32)],
    ids=["torch-float64", "torch-float32", f"{OPERATORS}-float32"],
)
def case(request) -> tuple[str, torch.dtype]:
    """A backend and a type that it computes in."""
    if reason := available_backends()[request.param[0]]:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="session")
def truths() -> dict:
    """The reference's results, by case: each is computed once for all backends."""
    return {}


@pytest.fixture
def compare(gradients, error, truths):
    """Compare a function's outputs and gradients on a backend with the reference in float64."""

    def check(function, tensors: dict, backend: str, key: tuple | None = None, **options) -> None:
        if key is None or key not in truths:
            wide = {k: x if x is None else x.double() for k, x in tensors.items()}
            truth = gradients(lambda **x: function(**x, **options, backend="reference"), wide)
            truths[key] = truth
        outputs, grads = truths[key]
        got, got_grads = gradients(lambda **x: function(**x, **options, backend=backend), tensors)
        for mine, true in zip(got, outputs, strict=True):
            assert error(mine, true) <= OUTPUT[mine.dtype]
        assert got_grads.keys() == grads.keys()
        errors = {name: error(got_grads[name], grads[name]) for name in grads}
        assert all(errors[name] <= GRADIENT[got_grads[name].dtype] for name in errors), errors
        for name, grad in got_grads.items():
            assert grad.dtype == tensors[name].dtype, name

    return check


def _scan_inputs(drawn: dict, with_options: tuple[str, ...]) -> tuple[dict, bool]:
    """Leave out what the case leaves out; without softplus delta is the step itself and so has to be positive."""
    softplus = "delta_softplus" in with_options
    tensors = {k: x for k, x in drawn.items() if k != "A_b" and (k not in OPTIONS or k in with_options)}
    if not softplus:
        tensors["delta"] = torch.nn.functional.softplus(tensors["delta"])
        if "delta_bias" in tensors:
            tensors["delta_bias"] = tensors["delta_bias"].abs()
    return tensors, softplus


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_selective_scan(case, compare, draw_scan, shape, reverse):
    backend, dtype = case
    for chosen in (OPTIONS, ()) if shape[1] < 500 else (OPTIONS,):  # the plain loops are slow on long ones
        tensors, softplus = _scan_inputs(draw_scan(*shape, dtype), chosen)
        compare(selective_scan, tensors, backend, (shape, reverse, chosen), reverse=reverse, delta_softplus=softplus)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_selective_scan_with_every_choice_of_options(case, compare, draw_scan, reverse):
    backend, dtype = case
    for chosen in itertools.chain.from_iterable(itertools.combinations(OPTIONS, k) for k in range(5)):
        tensors, softplus = _scan_inputs(draw_scan(*SHORT, dtype), chosen)
        compare(selective_scan, tensors, backend, (SHORT, reverse, chosen), reverse=reverse, delta_softplus=softplus)


@pytest.mark.parametrize("published", [False, True], ids=["true-gate", "published-gate"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bidirectional_scan(case, compare, draw_scan, shape, published):
    backend, dtype = case
    compare(
        bidirectional_scan,
        draw_scan(*shape, dtype),
        backend,
        (shape, "both", published),
        published_gate_gradient=published,
    )


def test_the_published_gate_changes_the_gates_gradient_alone(backend, draw_scan, gradients, error):
    tensors = draw_scan(*SHORT)
    (y,), true = gradients(lambda **x: bidirectional_scan(**x, backend=backend), tensors)
    (same,), published = gradients(
        lambda **x: bidirectional_scan(**x, backend=backend, published_gate_gradient=True), tensors
    )
    assert error(same, y) < 1e-6  # the forward pass is one and the same, up to the order of its sums
    assert error(published.pop("z"), true.pop("z")) > 0.1
    assert all(error(published[name], true[name]) < 1e-6 for name in true)


def test_both_directions_are_two_scans_added(backend, draw_scan, error):
    tensors = draw_scan(*SHORT)
    both = bidirectional_scan(**tensors, backend=backend)
    A_b = tensors.pop("A_b")
    forward = selective_scan(**tensors, backend=backend)
    reverse = selective_scan(**tensors | {"A": A_b}, reverse=True, backend=backend)
    assert error(both, forward + reverse) < 1e-6


def test_reverse_is_a_scan_of_the_flipped_sequence(backend, draw_scan, error):
    tensors = draw_scan(*SHORT)
    tensors.pop("A_b")
    flipped = {k: x.flip(1) if x.ndim == 3 else x for k, x in tensors.items()}
    assert (
        error(
            selective_scan(**tensors, reverse=True, backend=backend), selective_scan(**flipped, backend=backend).flip(1)
        )
        < 1e-6
    )


@pytest.mark.parametrize("shape", [SHORT, MEDIUM], ids=str)
def test_bfloat16_inputs(backend, compare, draw_scan, shape):
    tensors = draw_scan(*shape, torch.bfloat16)
    y = bidirectional_scan(**tensors, backend=backend)
    assert y.dtype == torch.bfloat16
    compare(bidirectional_scan, tensors, backend)
    tensors.pop("A_b")
    compare(selective_scan, tensors, backend, reverse=True)


def test_extreme_steps_stay_finite_and_right(backend, compare, draw_scan):
    tensors = draw_scan(2, 63, 24, 16)
    generator = torch.Generator().manual_seed(5)
    tensors["delta"] = torch.rand(2, 63, 24, generator=generator) * 40 - 20  # raw, -20 .. 20: steps of 2e-9 to 20
    tensors["delta"][:, ::7], tensors["delta"][:, 3::7] = 20.0, -20.0
    compare(bidirectional_scan, tensors, backend)  # NaN would fail every comparison


@pytest.mark.parametrize("raw", [-100.0, -20.0, 19.99, 20.0, 20.01, 100.0])
def test_one_extreme_step_everywhere(backend, draw_scan, gradients, raw):
    tensors = draw_scan(1, 33, 5, 8)
    tensors["delta"], tensors["delta_bias"] = torch.full((1, 33, 5), raw), torch.zeros(5)
    outputs, grads = gradients(lambda **x: bidirectional_scan(**x, backend=backend), tensors)
    assert outputs[0].isfinite().all()
    assert all(grad.isfinite().all() for grad in grads.values())


def test_contiguous_and_strided_inputs_give_the_same_bits(backend, draw_scan, gradients):
    strided = draw_scan(2, 37, 24, 16)
    assert (
        not strided["u"].is_contiguous() and not strided["B"].is_contiguous() and not strided["delta"].is_contiguous()
    )
    turned = {k: x.transpose(0, 1).contiguous().transpose(0, 1) if x.ndim == 3 else x for k, x in strided.items()}
    spread = {k: torch.stack([x, x], dim=-1)[..., 0] for k, x in strided.items()}  # no unit stride anywhere
    want, want_grads = gradients(
        lambda **x: bidirectional_scan(**x, backend=backend), {k: x.contiguous() for k, x in strided.items()}
    )
    for tensors in (strided, turned, spread):
        got, got_grads = gradients(lambda **x: bidirectional_scan(**x, backend=backend), tensors)
        if backend == "cpu":
            assert torch.equal(got[0], want[0])
            assert all(torch.equal(got_grads[k], want_grads[k]) for k in want_grads)
        else:  # matrix products choose their order of sums by stride
            torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-5)
            for k in want_grads:
                torch.testing.assert_close(got_grads[k], want_grads[k], rtol=1e-5, atol=1e-4)


def test_one_value_expanded_over_the_batch(backend, draw_scan, gradients, error):
    tensors = draw_scan(1, 20, 24, 8)
    expanded = {k: x.expand(3, -1, -1) if x.ndim == 3 else x for k, x in tensors.items()}  # stride 0
    one, three = (gradients(lambda **x: bidirectional_scan(**x, backend=backend), t)[0][0] for t in (tensors, expanded))
    assert error(three, one.expand(3, -1, -1)) < 1e-6


@pytest.mark.parametrize("name", ["u", "delta", "A", "A_b", "B", "C", "D", "z", "delta_bias"])
def test_nan_is_never_masked(backend, draw_scan, name):
    tensors = draw_scan(1, 37, 24, 16)
    tensors[name] = tensors[name].clone()
    if tensors[name].ndim == 3:
        tensors[name][0, 11, 3] = float("nan")
    else:
        tensors[name].view(-1)[3] = float("nan")
    if backend == "cpu" and name in ("A", "A_b"):
        with pytest.raises(ValueError, match="NaN"):  # refused by name
            bidirectional_scan(**tensors, backend=backend)
    else:
        assert bidirectional_scan(**tensors, backend=backend).isnan().any()


CONVOLUTIONS = [
    (2, 1, 5, 4),
    (2, 2, 24, 4),
    (3, 3, 1, 4),
    (2, 15, 40, 4),
    (1, 16, 24, 3),
    (2, 17, 16, 4),
    (1, 63, 5, 2),
    (2, 64, 24, 1),
    (2, 65, 40, 4),
    (1, 500, 5, 4),
    (1, 513, 40, 4),
]


def _convolution(b: int, l: int, e: int, k: int, bias: bool, dtype=torch.float32) -> dict:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(b, l, 2 * e, generator=generator).to(dtype).chunk(2, dim=-1)[0]  # (b, l, e), row stride 2e
    weight = (torch.randn(e, 1, k, generator=generator) / 2)[:, 0]  # (e, k), as the model cuts it
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {"x": x, "weight": weight.to(wide), "bias": torch.randn(e, generator=generator).to(wide) if bias else None}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("reverse", [False, True], ids=["past", "future"])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_causal_conv1d(case, compare, shape, reverse, bias):
    backend, dtype = case
    compare(causal_conv1d, _convolution(*shape, bias, dtype), backend, ("conv", shape, reverse, bias), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True], ids=["past", "future"])
def test_causal_conv1d_in_bfloat16(backend, compare, gradients, reverse):
    tensors = _convolution(2, 63, 24, 4, True, torch.bfloat16)
    assert causal_conv1d(**tensors, backend=backend).dtype == torch.bfloat16
    # weight and bias are float32, and so must be their gradients' precision: `compare` holds them to 5e-6
    compare(causal_conv1d, tensors, backend, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True], ids=["past", "future"])
def test_causal_conv1d_hears_one_side_only(backend, reverse):
    tensors = _convolution(1, 20, 5, 4, True)
    changed = tensors["x"].clone()
    changed[0, 10] += 1.0
    before, after = (
        causal_conv1d(**tensors | {"x": x}, reverse=reverse, backend=backend) for x in (tensors["x"], changed)
    )
    tokens = (before != after).any(-1)[0].nonzero()[:, 0].tolist()
    assert tokens == ([7, 8, 9, 10] if reverse else [10, 11, 12, 13])


@pytest.mark.parametrize("name", ["x", "weight", "bias"])
def test_nan_reaches_the_convolutions_output(backend, name):
    tensors = _convolution(1, 20, 5, 4, True)
    tensors[name] = tensors[name].clone()
    tensors[name][(0,) * tensors[name].ndim] = float("nan")
    assert causal_conv1d(**tensors, backend=backend).isnan().any()


NORMS = [(2, 1, 5), (1, 2, 1), (2, 15, 40), (1, 16, 24), (3, 63, 16), (2, 65, 24), (1, 500, 5), (1, 513, 40)]


def _norm(b: int, l: int, d: int, residual: bool, dtype=torch.float32) -> dict:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(b, l, d, generator=generator).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "x": x,
        "residual": torch.randn(b, l, d, generator=generator).to(wide) if residual else None,
        "weight": torch.randn(d, generator=generator).to(wide),
    }


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "first"])
@pytest.mark.parametrize("shape", NORMS, ids=str)
def test_add_rms_norm(case, compare, shape, residual):
    backend, dtype = case
    compare(add_rms_norm, _norm(*shape, residual, dtype), backend, ("norm", shape, residual), eps=1e-5)


@pytest.mark.parametrize("used", [0, 1], ids=["norm-only", "stream-only"])
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "first"])
def test_add_rms_norm_with_one_output_unused(backend, gradients, error, used, residual):
    tensors = _norm(2, 17, 24, residual)
    if used == 1:  # the weight has no share in the stream
        weight = tensors.pop("weight")

        def run(backend, **x):
            return add_rms_norm(**x, weight=weight.to(x["x"].dtype), eps=1e-5, backend=backend)[1]
    else:

        def run(backend, **x):
            return add_rms_norm(**x, eps=1e-5, backend=backend)[0]

    _, truth = gradients(
        lambda **x: run("reference", **x), {k: x if x is None else x.double() for k, x in tensors.items()}
    )
    _, grads = gradients(lambda **x: run(backend, **x), tensors)
    assert all(error(grads[k], truth[k]) < 5e-6 for k in truth)


def test_add_rms_norm_keeps_the_stream_in_float32(backend, compare):
    tensors = _norm(2, 17, 24, True, torch.bfloat16)
    out, stream = add_rms_norm(**tensors, eps=1e-5, backend=backend)
    assert out.dtype == stream.dtype == torch.float32
    compare(add_rms_norm, tensors, backend, eps=1e-5)


def test_add_rms_norm_of_zeros_is_zero(backend):
    out, stream = add_rms_norm(torch.zeros(1, 3, 5), None, torch.ones(5), 1e-5, backend=backend)
    assert torch.equal(out, torch.zeros(1, 3, 5)) and torch.equal(stream, out)


@pytest.mark.parametrize("name", ["x", "residual", "weight"])
def test_nan_reaches_the_norms_output(backend, name):
    tensors = _norm(1, 4, 5, True)
    tensors[name] = tensors[name].clone()
    tensors[name][(0,) * tensors[name].ndim] = float("nan")
    assert add_rms_norm(**tensors, eps=1e-5, backend=backend)[0].isnan().any()
