"""benchmarks/profile_blocks.py: the parts of a block, their flops and bytes."""

import profile_blocks
import pytest

from aumcli.bench import Sweep


@pytest.mark.parametrize("model", ["aum-nano", "ast-nano", "ast-nano-eager"])
def test_parts_of_a_block(model, monkeypatch, run_interleaved_here):
    monkeypatch.setattr(profile_blocks, "COPY_BYTES", 4096)
    monkeypatch.setattr(profile_blocks, "run_interleaved", run_interleaved_here)
    (profile,) = profile_blocks.profile_blocks(Sweep([model], 16, 16))
    part = profile.part
    if model == "aum-nano":
        names = ["norm", "in_proj", "convolution", "x_proj, dt_proj", "scan", "out_proj"]
        assert part("in_proj").flops == 2 * 17 * 128 * 512
        assert part("x_proj, dt_proj").flops == 2 * 17 * 256 * (24 + 8)
        assert part("scan").min_bytes == 4 * 17 * (4 * 256 + 2 * 8)  # u, delta, z, y; B, C
    else:
        names = ["norms", "qkv", "attention", "proj", "mlp"]
        assert part("qkv").flops == 2 * 17 * 128 * 384 and part("attention").flops == 4 * 17 * 17 * 128
    assert [each.name for each in profile.parts] == [*names, "whole block", "its matmuls alone", "copy in memory"]
    assert part("whole block").flops == sum(part(name).flops for name in names)
    assert all(len(each.samples_ms) == 3 for each in profile.parts)
    rows = profile_blocks.table_rows(profile)
    assert {len(row) for row in rows} == {len(profile_blocks.COLUMNS)}
    assert rows[-3][2] == "100.0 %" and rows[-1][-1] == "100 %"
