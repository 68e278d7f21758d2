"""report.json, report.md and the plots of a finished run: how it came about and how good it is."""

from dataclasses import asdict

from aumcli.metrics import Metrics
from aumcli.report.environment import commit, environment
from aumcli.report.plots import drawn, plot_confusion, plot_curves
from aumcli.report.tables import markdown_table
from aumcli.train.comparison import Comparison
from aumcli.train.setup import TrainState
from aumcli.utils.files import write_json, write_text
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, percent

logger = get_logger(__name__)


def write_report(state: TrainState, metrics: Metrics, comparison: Comparison | None) -> None:
    """Write the report of a finished run into its folder.

    Args:
        state: of the training.
        metrics: of the best epoch's weights on the validation split.
        comparison: of the network with others, where it was made.
    """
    facts = {
        "seed": state.recipe.seed,
        "backend": state.classifier.backend,
        "device": str(state.classifier.device),
        "dtype": "float32",
        "training_dtype": state.recipe.train.dtype,
        "processes": state.process_group.size,
        "data": str(state.data),
        "data_sha256": state.data_sha256,
        "commit": commit(),
    }
    machine = environment()
    write_json(
        state.out / "report.json",
        {
            "recipe": state.recipe.model_dump(mode="json"),
            "epochs": state.history,
            "split": state.val_name,
            "clips": metrics.clips,
            **facts,
            "environment": machine,
            "reported": {"split": state.recipe.data.reported, "clips": state.reported},
            "metrics": metrics.to_dict(),
            "comparison": comparison and asdict(comparison),
        },
    )
    _write_markdown(state, metrics.clips, comparison, {**facts, **machine})
    for problem in _plots(state, metrics):
        logger.warning(problem)


def _write_markdown(state: TrainState, clips: int, comparison: Comparison | None, facts: dict[str, object]) -> None:
    """Write report.md, for `clips` validation clips."""
    best, last = state.history[state.best - 1], state.history[-1]
    score = state.metric[4:]
    rows: list[list[object]] = [
        ["model", state.recipe.model.describe()],
        ["training clips", len(state.train)],
        ["epochs", f"{last['epoch']} of {state.recipe.train.epochs}"],
        [
            f"best {score}",
            f"{percent(best[state.metric])} of {counted(clips, 'validation clip')}, at epoch {best['epoch']}",
        ],
        ["time", f"{sum(row['seconds'] or 0 for row in state.history) / 60:.1f} min"],
        ["skipped steps", sum(row["skipped_steps"] or 0 for row in state.history)],
        ["skipped clips", len(state.unreadable_clips)],
        *([key, value] for key, value in facts.items()),
    ]
    if comparison:
        rows[4:4] = [
            [f"a linear model's {score}", f"{percent(comparison.linear)}, of mean spectra, on the same clips"],
            [f"{score} in training", f"{percent(comparison.training)} of {counted(comparison.clips, 'clip')}"],
        ]
    write_text(
        state.out / "report.md",
        f"# {state.out.name}\n\n{markdown_table(['', ''], rows)}\n![Loss and {score} by epoch](curves.png)\n\n"
        "`recipe.toml` holds every setting, `metrics.csv` a row per epoch, `report.json` all of this for programs.\n",
    )


def _plots(state: TrainState, metrics: Metrics) -> list[str]:
    """Draw curves.png and confusion-val.png; what could not be drawn."""
    problems = [drawn(plot_curves, state.history, state.out / "curves.png", state.out.name, state.metric)]
    if metrics.confusion is not None:
        title = f"{state.out.name}, validation split"
        path = state.out / "confusion-val.png"
        problems.append(drawn(plot_confusion, metrics.confusion, metrics.confusion_labels, path, title))
    return [problem for problem in problems if problem]
