"""What several of these scripts need: the option --smoke, the options of a sweep, Markdown tables, inputs of the scan.

Heavy imports stay inside the functions: some of these scripts measure what their own imports cost.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from aumcli.bench import Sweep
    from aumcli.config import AudioMambaConfig

SMOKE = "tiny sizes, in seconds: shows that everything runs; times and memory are held to nothing"
# generated sounds, and other people's code that ours is compared with
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "fixtures"))


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it is, with the option --smoke."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help=SMOKE)
    return parser


def parse_sweep(description: str | None, models: str) -> "Sweep":
    """The sweep that the command line asks for, with the options of `aum bench`.

    Args:
        description: the script's.
        models: the default of --models.
    """
    import torch

    from aumcli.bench import StoppingRule, Sweep

    parser = parser_of(description)
    parser.add_argument("--models", default=models, help=f"see aum bench --help (default: {models})")
    parser.add_argument("--min-tokens", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16, float16 or several")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1, help="clips at a time")
    parser.add_argument("--threads", type=int, help="that compute (default: torch's choice)")
    parser.add_argument("--precision", type=float, default=0.01, help="relative standard error of the medians to reach")
    parser.add_argument("--repeats", type=int, default=50, help="timed runs at most")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per measurement")
    options = parser.parse_args()
    if options.smoke:
        options.models = options.models.replace("base", "nano")
        options.min_tokens = options.max_tokens = 8
        options.repeats = 1
    if options.threads:
        torch.set_num_threads(options.threads)
    return Sweep(
        options.models.split(","),
        options.min_tokens,
        options.max_tokens,
        dtypes=options.dtype.split(","),
        device=options.device,
        batch=options.batch,
        stopping_rule=StoppingRule(options.precision, options.repeats, options.budget),
    )


def print_environment() -> None:
    """Print what measures: versions, processor, threads."""
    from aumcli.report.environment import environment

    print(", ".join(f"{key} {value}" for key, value in environment().items()) + "\n", flush=True)


def print_section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a heading and a table as Markdown."""
    from aumcli.report.tables import markdown_table

    print(f"### {title}\n\n{markdown_table(columns, rows)}", flush=True)


def prepare_tones(folder: Path) -> Path:
    """A prepared corpus of three classes; an epoch by the recipe tests/fixtures/tiny.toml takes a tenth of a second."""
    from tiny import sounds

    from aumcli.prepare import prepare

    prepare("folder", folder / "data", source=sounds(folder / "sounds", 10), split="60/20/20")
    return folder / "data"


def scan_inputs(
    config: "AudioMambaConfig", l: int, b: int = 1, dtype: "torch.dtype | None" = None, seed: int = 0
) -> "dict[str, Tensor]":
    """Random inputs of the bidirectional scan at the sizes of a model's block, with the parameters of a fresh model.

    Args:
        config: of the model.
        l, b: tokens and clips.
        dtype: of u, delta, B, C and z; None: float32, which the parameters have in any case.
        seed: of the values.

    Returns:
        The arguments of `aumcli.core.kernels.bidirectional_scan` by name, in their order.
    """
    import torch

    from aumcli.config import Direction
    from aumcli.core.mixer import Mixer

    torch.manual_seed(seed)
    mixer = Mixer(config.model_copy(update={"direction": Direction.FO_BI}))
    e, n = config.inner_width, config.state_size
    u, delta, z = (torch.randn(b, l, e).to(dtype) for _ in range(3))  # (b, l, e) each
    B, C = (torch.randn(b, l, n).to(dtype) for _ in range(2))  # (b, l, n) each
    return {
        "u": u,
        "delta": delta - 4,  # step sizes as in a fresh model: softplus(-4) is 0.02
        "A": -torch.exp(mixer.A_log.detach()),  # (e, n)
        "A_b": -torch.exp(mixer.A_b_log.detach()),  # (e, n)
        "B": B,
        "C": C,
        "D": torch.ones(e),
        "z": z,
        "delta_bias": mixer.dt_proj.bias.detach(),  # (e)
    }
