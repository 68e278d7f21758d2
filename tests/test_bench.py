"""aum bench: what it measures, what it says where a model can't run, and what it concludes."""

import csv
import json
import math
import re
import statistics

import numpy as np
import pytest
import torch
from fake_benchmarks import broken, hungry, killed, steady
from matplotlib.image import imread

from aumcli.bench import (
    BenchConfig,
    Measurement,
    Result,
    StoppingRule,
    Sweep,
    plot,
    read_results,
    sweep,
)
from aumcli.bench.analysis import comparisons, growth
from aumcli.bench.interleave import Samples, relative_error, run_interleaved
from aumcli.bench.measurement import network_config, timed_runs
from aumcli.bench.output import update_results, write_results
from aumcli.core.kernels import available_backends
from aumcli.errors import AumError
from aumcli.utils.subprocesses import OUT_OF_MEMORY

pytest_plugins = ["aum_fixtures"]
QUICK = StoppingRule(repeats=3, budget_s=10)


def bench_config(model="aum-nano", tokens=16, **other) -> BenchConfig:
    return BenchConfig(
        **{
            "model": model,
            "tokens": tokens,
            "mode": "inference",
            "dtype": "float32",
            "device": "cpu",
            "batch": 1,
            "threads": 1,
        }
        | other
    )


def made(times: dict[str, dict[int, float | None]], machine="a machine", **other) -> Result:
    """A result with these medians in ms by model and tokens; None: out of memory."""
    measurements = [
        Measurement(
            bench_config(model, tokens, **other),
            0.02 * tokens,
            "x",
            [] if ms is None else [0.99 * ms, ms, 1.01 * ms],
            None if ms is None else 1000 * tokens,
            None,
            OUT_OF_MEMORY if ms is None else "",
        )
        for model, by_tokens in times.items()
        for tokens, ms in by_tokens.items()
    ]
    return Result({"cpu": machine, "threads": 1}, QUICK, measurements)


SWEEP = {
    "aum-base": {512: 100.0, 1024: 200.0, 2048: 400.0},
    "ast-base": {512: 50.0, 1024: 200.0, 2048: 800.0},
    "ast-base-eager": {512: 60.0, 1024: 240.0, 2048: None},
}


def test_command_prints_and_writes_every_sample(aum, tmp_path):
    result = aum(
        "bench",
        "--models",
        "aum-nano,ast-nano-eager",
        "--min-tokens",
        16,
        "--max-tokens",
        32,
        "--repeats",
        3,
        "--out",
        tmp_path,
    )
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert [line.split()[:4] for line in lines[2:6:2]] == [
        ["16", "0.32", "s", "aum-nano"],
        ["32", "0.64", "s", "aum-nano"],
    ]
    assert max(map(len, lines[:-1])) <= 80
    assert re.search(
        "aum-nano.* ast-nano-eager.*(times as fast|within the error|larger than the error)",
        " ".join(result.out.split()),
    )
    written = json.loads((tmp_path / "bench.json").read_text())
    (only,) = written["results"]
    assert (
        written["schema"] == 3
        and only["environment"]["torch"] == torch.__version__
        and only["stopping_rule"]["repeats"] == 3
    )
    assert [(p["config"]["model"], p["config"]["tokens"], p["backend"]) for p in only["measurements"]] == [
        ("aum-nano", 16, "torch" if available_backends()["cpu"] else "cpu"),
        ("ast-nano-eager", 16, "eager"),
        ("aum-nano", 32, "torch" if available_backends()["cpu"] else "cpu"),
        ("ast-nano-eager", 32, "eager"),
    ]
    for each in only["measurements"]:
        assert len(each["samples_ms"]) == 3 and each["median_ms"] == statistics.median(each["samples_ms"])
        assert each["peak_bytes"] > 0 and each["saved_bytes"] is None
    rows = list(csv.DictReader((tmp_path / "bench.csv").open()))
    assert [float(row["median_ms"]) for row in rows] == [each["median_ms"] for each in only["measurements"]]
    assert "| 32 | 0.64 s | ast-nano-eager | eager |" in (tmp_path / "bench.md").read_text()
    assert imread(tmp_path / "bench.png").std() > 0.01


def test_bytes_kept_for_the_backward_pass_grow_with_the_tokens():
    short, long, half = (
        next(timed_runs(bench_config("ast-nano", tokens, mode="training", dtype=dtype)))[1]["saved_bytes"]
        for tokens, dtype in ((64, "float32"), (128, "float32"), (128, "bfloat16"))
    )
    width, depth = 128, 3
    least = (
        4 * 64 * width * depth * 8
    )  # norm's input, qkv, attention's output, both of the perceptron's: over 8 d a token
    assert least < short < 4 * least and 1.9 * short < long < 2.1 * short and half < long


def test_a_killed_competitor_is_a_mark_and_the_other_goes_on():
    victim, other = run_interleaved(killed, ["victim", "other"], QUICK)
    assert victim.failure == OUT_OF_MEMORY and not victim.ms
    assert other.ms == {"run": [1.0, 1.0, 1.0]} and not other.failure  # its two warm-ups took 9 ms


def test_out_of_memory_beside_others_is_tried_again_alone(tmp_path):
    hungry_one, other = run_interleaved(hungry, [tmp_path / "marker", None], QUICK)
    assert hungry_one.ms == other.ms == {"run": [2.0, 2.0, 2.0]}


def test_what_torch_can_not_do_is_a_mark_with_its_reason():
    reasons = [
        run_interleaved(broken, [text], QUICK)[0].failure
        for text in ("\"mm\" not implemented for 'Half'\nC++ trace", "can't allocate memory: 9")
    ]
    assert reasons == ["\"mm\" not implemented for 'Half'", OUT_OF_MEMORY]


def test_memory_that_can_not_be_had_is_a_mark():
    with pytest.raises(RuntimeError, match="can't allocate memory"):  # which a worker calls out of memory
        next(timed_runs(bench_config("ast-nano-eager", 200_000)))


def test_precision_repeats_and_budget_end_a_measurement():
    (precise,) = run_interleaved(steady, [1.0], StoppingRule(precision=0.01, repeats=50, budget_s=10))
    assert precise.count == 5  # equal samples: precise with the fewest that may be
    (dear,) = run_interleaved(steady, [400.0], StoppingRule(precision=0.0, repeats=50, budget_s=1.0))
    assert dear.count == 3 and dear.warm_ups == 1  # a tenth of the budget: one warm-up is enough
    (over,) = run_interleaved(steady, [2000.0], StoppingRule(budget_s=1.0))
    assert over.failure == "over budget: 2 s a run"


def test_precision_is_the_standard_error_of_the_median():
    draws = np.random.default_rng(0).normal(100, 10, (4000, 40))
    assert statistics.fmean(map(relative_error, draws.tolist())) == pytest.approx(
        np.median(draws, 1).std() / 100, rel=0.06
    )
    assert Samples(ms={"a": [1.0] * 5, "b": [1.0, 2.0, 3.0, 4.0, 5.0]}).is_precise(StoppingRule()) is False


def test_growth_is_fitted_to_the_longer_half():
    short = {64: 50.0, 128: 50.0, 256: 60.0}
    found = growth(
        made(
            {"aum-base": short | {512: 0.001 * 512**1.5, 1024: 0.001 * 1024**1.5, 2048: 0.001 * 2048**1.5}}
        ).measurements
    )
    assert (round(found.exponent, 6), found.lengths, found.from_tokens) == (1.5, 3, 512)
    assert growth(made({"aum-base": {512: 1.0, 1024: None}}).measurements) is None


def test_crossovers_are_interpolated_and_said_plainly():
    fused, eager = comparisons(made(SWEEP | {"ast-base": {512: 50.0, 1024: 150.0, 2048: 1200.0}}).measurements)
    a, b = math.log(1.5 / 2), math.log(3)
    assert fused.crossings == (pytest.approx(1024 * 2 ** (-a / (b - a))),)
    assert (
        fused.sentence() == "ast-base is faster up to 1,182 tokens (23.6 s), then aum-base; "
        "aum-base is 3.00 ± 0.04 times as fast as ast-base at 2,048 tokens."
    )
    assert list(eager.ratios) == [512, 1024]  # where both ran
    (behind,) = comparisons(made({"aum-base": {512: 2.0, 1024: 4.0}, "ast-base": {512: 1.0, 1024: 3.0}}).measurements)
    assert behind.sentence().startswith(
        "ast-base is faster than aum-base at every length measured, 512 to 1,024 tokens: no crossover"
    )
    (ahead,) = comparisons(made({"aum-base": {512: 1.0}, "ast-base": {512: 3.0}}).measurements)
    assert ahead.sentence().startswith("aum-base is faster than ast-base at the one length measured: no crossover")
    assert not list(comparisons(made({"aum-base": {512: 1.0}, "aum-small": {512: 1.0}}).measurements))


def with_error(result: Result, model: str, tokens: int, share: float) -> Result:
    """The result with samples of one measurement so far apart that its relative standard error is this."""
    for each in result.measurements:
        if (each.config.model, each.config.tokens) == (model, tokens):
            ms, wide = each.median_ms, share * math.sqrt(3) / 0.93
            each.samples_ms[:] = [ms * (1 - wide), ms, ms * (1 + wide)]
            assert each.relative_error == pytest.approx(share)
    return result


def test_no_lead_is_claimed_within_the_error():
    times = {"aum-base": {512: 100.0, 1024: 200.0, 2048: 400.0}, "ast-base": {512: 50.0, 1024: 230.0, 2048: 800.0}}
    (unclear,) = comparisons(with_error(made(times), "ast-base", 1024, 0.27).measurements)
    assert unclear.undecided == [1024]
    assert "somewhere between 512 and 2,048 tokens, then aum-base" in unclear.sentence()
    assert "at 1,024 tokens the difference is within the error" in unclear.sentence()
    (first,) = comparisons(with_error(made(times), "ast-base", 512, 0.9).measurements)
    assert not first.crossings and "aum-base is faster than ast-base at 1,024, 2,048 tokens" in first.sentence()
    (none,) = comparisons(
        with_error(made({"aum-base": {512: 100.0}, "ast-base": {512: 110.0}}), "aum-base", 512, 0.2).measurements
    )
    assert "at no length is the difference larger than the error" in none.sentence()


def test_measurements_that_are_not_precise_enough_are_named():
    from aumcli.bench.tables import conclusions, markdown

    result = with_error(made(SWEEP), "ast-base", 1024, 0.27)
    [line] = [line for line in conclusions(result.measurements, StoppingRule(precision=0.01)) if "precision" in line]
    assert "ast-base at 1,024 tokens 27.0 %" in line and "aum-base" not in line and "--budget" in line
    assert not any("precision of" in line for line in conclusions(result.measurements, StoppingRule(precision=0.3)))
    assert "ast-base at 1,024 tokens 27.0 %" in markdown(
        [Result(result.environment, StoppingRule(precision=0.01), result.measurements)]
    )


def test_picture_marks_what_ran_out_of_memory(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    plot.plot_results([made(SWEEP), made(SWEEP, "another", mode="training")], tmp_path / "x.png")
    assert len(figures[0].axes) == 4
    for axes in figures[0].axes:
        (mark,) = [text for text in axes.texts if "OOM" in text.get_text()]
        assert mark.get_text() == "base OOM" and mark.xy[0] == 2048
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert [label.get_text() for label in axes.child_axes[0].get_xticklabels()] == ["10.2", "20.5", "41"]  # seconds
    names = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert names == ["AuM, base", "AST, base", "AST eager, base", "a machine", "another", OUT_OF_MEMORY]


def test_results_of_two_machines_are_joined(aum, tmp_path):
    twice = {model: {tokens: ms and 2 * ms for tokens, ms in each.items()} for model, each in SWEEP.items()}
    write_results(tmp_path / "a", [made(SWEEP)])
    write_results(tmp_path / "b", [made(twice, "another")])
    result = aum("bench", "--compare", tmp_path / "a", tmp_path / "b" / "bench.json", "--out", tmp_path / "c")
    assert result.code == 0 and max(map(len, result.out.splitlines()[:-1])) <= 80
    lines = result.out.splitlines()
    assert lines[0].startswith("A: cpu a machine") and lines[1].startswith("B: cpu another")
    rows = [line.split() for line in lines]
    assert ["inference", "float32", "512", "aum-base", "100", "ms", "200", "ms", "2.00"] in rows
    assert [row[-3:] for row in rows if "ast-base-eager" in row and "2048" in row] == [["failed", "failed", "-"]]
    assert [each.machine for each in read_results(tmp_path / "c")] == ["a machine", "another"]
    assert aum("bench", "--compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "a").code == 2
    assert "nothing to compare" in aum("bench", "--compare", tmp_path / "a").err
    assert "--compare needs files" in aum("bench", "--compare").err
    assert "only --compare takes files" in aum("bench", tmp_path / "a").err
    (tmp_path / "b" / "bench.json").write_text('{"schema": 1}')
    assert "schema 1" in aum("bench", "--compare", tmp_path / "a", tmp_path / "b").err


def test_a_folder_is_added_to_by_the_same_machine_only(tmp_path):
    first, second = made(SWEEP), made({"aum-base": {2048: 7.0, 4096: 9.0}})
    update_results(tmp_path, first.environment, QUICK, first.measurements)
    update_results(tmp_path, first.environment, QUICK, second.measurements)
    (only,) = read_results(tmp_path)
    assert len(only.measurements) == 10
    assert {p.config.tokens: p.median_ms for p in only.measurements if p.config.model == "aum-base"} == {
        512: 100,
        1024: 200,
        2048: 7,
        4096: 9,
    }
    with pytest.raises(AumError, match="another machine"):
        update_results(tmp_path, {"cpu": "another", "threads": 1}, QUICK, second.measurements)


def test_a_model_directory_is_measured_at_any_length():
    config, backend, clip_s = network_config("digits", 21)  # a packaged one, patches of 64 mels by 4 frames
    assert (config.n_patches, config.width, config.state_size) == (21, 128, 8)
    assert backend == "auto" and clip_s == pytest.approx(0.84)
    times, facts = next(timed_runs(bench_config("digits", 21)))
    assert times["run"] > 0 and facts["saved_bytes"] is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"models": ["aum-huge"]}, "aum-huge"),
        ({"models": ["aum-base-eager"]}, "aum-base-eager"),
        ({"modes": ["fast"]}, "--mode"),
        ({"dtypes": ["float8"]}, "--dtype"),
        ({"min_tokens": 12}, "12"),
        ({"max_tokens": 8}, "8"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_mistakes_are_named_before_anything_runs(arguments, words):
    with pytest.raises(AumError, match=words):
        Sweep(**arguments)


# a cap of the memory


def test_what_needs_more_than_the_cap_is_out_of_memory(aum, tmp_path):
    arguments = (
        "bench",
        "--models",
        "aum-nano,ast-nano-eager",
        "--min-tokens",
        64,
        "--max-tokens",
        64,
        "--repeats",
        1,
        "--out",
        tmp_path,
    )
    result = aum(*arguments, "--memory-cap", 0.001)
    assert result.code == 0 and result.out.count("out of memory") == 4 and "at most 0.001 GiB" in result.out, result.err
    measurements = read_results(tmp_path)[0].measurements
    assert [(each.failure, each.config.memory_cap_gib) for each in measurements] == [(OUT_OF_MEMORY, 0.001)] * 2
    rows = list(csv.DictReader((tmp_path / "bench.csv").open()))
    assert {row["memory_cap_gib"] for row in rows} == {"0.001"} and "at most 0.001 GiB" in (
        tmp_path / "bench.md"
    ).read_text()
    assert next(timed_runs(bench_config("ast-nano-eager", 64, memory_cap_gib=16.0)))[0]["run"] > 0


def test_capped_and_other_measurements_stay_apart(tmp_path):
    capped = made({"ast-base": {512: 50.0, 1024: None}}, memory_cap_gib=48.0)
    update_results(tmp_path, capped.environment, QUICK, made({"ast-base": {512: 50.0, 1024: 70.0}}).measurements)
    update_results(tmp_path, capped.environment, QUICK, capped.measurements)
    page = (tmp_path / "bench.md").read_text()
    assert (
        page.count("### inference") == 2
        and page.count("at most 48 GiB") == 1
        and len(read_results(tmp_path)[0].measurements) == 4
    )


def test_a_cap_must_be_within_the_devices_memory(monkeypatch):
    monkeypatch.setattr(sweep, "device_bytes", lambda device: int(47.5 * 2**30))  # what an A6000 shows of its 48
    assert Sweep(memory_cap_gib=48.0).config("aum-base", 512).memory_cap_gib == 48.0
    with pytest.raises(AumError, match="47.5 GiB of memory, less than --memory-cap 80"):
        Sweep(memory_cap_gib=80.0)


def test_a_cap_is_for_the_sweep(aum):
    refused = aum("bench", "--compare", "--memory-cap", 1)
    assert refused.code == 2 and "--memory-cap" in refused.err and "--compare" in refused.err


def test_picture_draws_the_cap(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    plot.plot_results([made(SWEEP, device="cuda", batch=12, memory_cap_gib=48.0)], tmp_path / "x.png")
    time, memory = figures[0].axes
    assert memory.get_ylabel() == "peak device memory (GiB)" and "48 GiB" in [text.get_text() for text in memory.texts]
    assert [48.0, 48.0] in [list(line.get_ydata()) for line in memory.lines]
    assert not [line for line in time.lines if list(line.get_ydata()) == [48.0, 48.0]]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()][-1] == "out of memory (48 GiB)"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_no_more_than_the_cap():
    needs = next(timed_runs(bench_config("ast-nano-eager", 2048, mode="training", device="cuda")))[1]["peak_bytes"]
    capped, free = run_interleaved(
        timed_runs,
        [
            bench_config("ast-nano-eager", 2048, mode="training", device="cuda", memory_cap_gib=cap / 2**30)
            for cap in (needs / 2, 4 * needs)
        ],
        QUICK,
    )
    assert capped.failure == OUT_OF_MEMORY and not free.failure
