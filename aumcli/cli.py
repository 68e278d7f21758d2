"""The `aum` command: one short function per subcommand. Heavy imports stay inside them, so that --help is quick."""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import StrEnum
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from aumcli.errors import AumError
from aumcli.utils.console import as_message, close_output, echo, open_streams, print_error
from aumcli.utils.files import check_folder, descriptor
from aumcli.utils.logging import get_logger, show_logs
from aumcli.utils.memory import keep_memory
from aumcli.utils.processes import rank_and_world_size
from aumcli.utils.text import shell_quoted, to_json

logger = get_logger(__name__)


class _Commands(TyperGroup):
    """All commands; what typer would pass on without a message, a signal or a broken pipe, gets one."""

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise AumError("stopped", exit_code=130) from None
        except OSError as error:
            raise as_message(error) from error


app = typer.Typer(
    name="aum",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audio classification with Audio Mamba: prepare data, train, evaluate, predict, compare.",
)

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto (a GPU where there is one)")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="threads that compute (default: the cores, or OMP_NUM_THREADS)")
]
Channel = Annotated[
    str, typer.Option(help="of stereo and more: mean, left, right, a number from 1, or max (the loudest)")
]
LONG, OUTPUT, SPEED, PAPER = "Long sounds", "Output", "Speed", "The paper's tables"
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="log details too", show_default=False)]
Quiet = Annotated[int, typer.Option("--quiet", "-q", count=True, help="only warnings; -qq: errors", show_default=False)]
F = TypeVar("F", bound=Callable[..., object])


CORPORA = (
    "synth, fsdd, speechcommands, esc50, audioset, as20k, vggsound, voxceleb1, epic_sounds; "
    "your own: folder, csv, annotations, ast-json"
)


def command(name: str | None = None) -> Callable[[F], F]:
    """Register a subcommand, with -v and -q beside its own options."""

    def register(function: F) -> F:
        @wraps(function)
        def run(*args: Any, verbose: int = 0, quiet: int = 0, **kwargs: Any) -> object:
            if verbose or quiet:  # else those before the command's name count
                show_logs(verbose - quiet)
            return function(*args, **kwargs)

        parameters = list(signature(function).parameters.values())
        parameters += [
            Parameter(key, Parameter.KEYWORD_ONLY, default=0, annotation=annotation)
            for key, annotation in (("verbose", Verbose), ("quiet", Quiet))
        ]
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # which typer reads the options from
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name)(run)
        return function

    return register


class To(StrEnum):
    """What `aum convert` writes."""

    MODEL = "model"
    TRANSFORMERS = "transformers"


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        echo(f"aumcli {version('aumcli')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and end")
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = 0,
) -> None:
    """Audio classification with Audio Mamba: prepare data, train, evaluate, predict, compare."""
    show_logs(verbose - quiet)


@command()
def prepare(
    corpus: Annotated[str, typer.Argument(help=CORPORA)],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="your sounds: for `folder` one sub-folder per class, for `csv` the table, for `annotations` "
            "recordings with label files, for `ast-json` the folder of the lists; else as --source"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="where to (default: data/CORPUS)")] = None,
    source: Annotated[
        Path | None, typer.Option(help="archive or folder to take the sounds from, instead of downloading")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="the corpus's tables, or their folder (default: with the sounds)")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="percent of train/val/test, such as 80/10/10; 0/0/100: a test set only")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="what only some corpora have: val=5, audioset's train=full, csv's label=COLUMN, "
            "annotations' window=3; "
            "group=, what stays in one split: csv's column, folder's `folder`, pattern or table; "
            "keep=silent, keep=loud: such clips too; repeatable",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="chooses among random splits or sounds")] = 0,
    workers: Annotated[int | None, typer.Option(help="threads that open clips (default: the cores)")] = None,
    strict: Annotated[
        bool, typer.Option("--strict/--keep-going", help="stop at unusable files, or leave them out")
    ] = False,
    shards: Annotated[bool, typer.Option("--shards", help="also write tar files that training can stream")] = False,
    channel: Channel = "mean",
    background: Annotated[
        list[Path] | None,
        typer.Option(help="add the sounds below this folder as ones of no class, long ones cut up; repeatable"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download or take a corpus, open every clip once, and index it: writes data/CORPUS/."""
    from dataclasses import asdict

    from aumcli.prepare import prepare as prepare_corpus
    from aumcli.report.tables import print_prepared

    check_folder(out)
    if folder is not None and source is not None:
        raise AumError(
            "both a folder and --source were given", fix="give one of them; tables that lie elsewhere: --annotations"
        )
    try:
        report = prepare_corpus(
            corpus,
            out,
            source=source or folder,
            split=split,
            seed=seed,
            strict=strict,
            annotations=annotations,
            settings=set_ or [],
            workers=workers,
            shards=shards,
            channel=channel,
            background=background or [],
        )
    except KeyboardInterrupt:
        raise AumError(
            "stopped; what was opened is remembered", fix="go on with the same command", exit_code=130
        ) from None
    _print_json(asdict(report)) if as_json else print_prepared(report)
    raise typer.Exit(1 if report.failures else 0)


@command()
def train(
    recipe: Annotated[str, typer.Option(help="a recipe's name (aum info recipes) or a .toml file")] = "quickstart",
    data: Annotated[
        str | None, typer.Option(help="prepared data, or the URL of its shards (default: data/<the recipe's corpus>)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="the run's folder (default: runs/<recipe or data>)")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="change a value: --set train.epochs=5; repeatable")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="start from a checkpoint, a run or a model instead of fresh weights")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="decides every random draw (default: the recipe's, 0)")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would happen and what it needs; write nothing")
    ] = False,
    resume: Annotated[bool, typer.Option(help="go on where the run in --out was saved last")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="train as many of the recipe's epochs as fit into this time")
    ] = None,
    device: Device = "cpu",
    devices: Annotated[
        int, typer.Option(min=1, help="train on so many GPUs (--device cuda), or in so many processes on the CPU")
    ] = 1,
    threads: Threads = None,
) -> None:
    """Train a model on prepared data: writes runs/NAME/."""
    from aumcli.recipe import load_recipe

    overrides = _overrides(set_, {"seed": seed, "train.init": init and str(init)})
    check_folder(out)
    loaded = load_recipe(recipe, overrides)  # before torch: a mistake in a recipe is said at once
    if resume and minutes is not None:
        raise AumError(
            "--resume continues with the run's own schedule, so --minutes can't change it", fix="leave --minutes out"
        )
    if resume and any(text.partition("=")[0].strip() != "train.epochs" for text in overrides):
        raise AumError(
            "--resume continues with the run's own recipe, so --seed, --init and --set can't change it, "
            "but for train.epochs",
            fix="leave them out, or start a new run with another --out",
        )
    where = data and (data if "://" in data else Path(data))  # a path has no two slashes in a row
    out = out or Path("runs") / (Path(data).resolve().name if data and recipe == "quickstart" else Path(recipe).stem)
    if dry_run and minutes is not None:
        raise AumError("--dry-run says how long every epoch takes, whatever --minutes is", fix="leave --minutes out")
    if dry_run:
        return _dry_run(loaded, out, where, device, threads)
    if devices > 1:
        from aumcli.train.distributed import launch

        raise typer.Exit(launch(devices, _without(sys.argv[1:], "--devices")))
    from aumcli.train import train as run_training
    from aumcli.train.distributed import report_error_once

    _use_threads(threads)
    try:
        with report_error_once():
            run_training(
                loaded,
                out,
                where,
                resume=resume,
                device=device,
                epochs=loaded.train.epochs if resume and overrides else None,
                minutes=minutes,
            )
    except KeyboardInterrupt:
        raise AumError(
            "stopped at once; what was saved is kept",
            fix=f"go on with aum train --resume --out {shell_quoted(out)}",
            exit_code=130,
        ) from None
    if rank_and_world_size()[0] == 0:  # one of several processes speaks
        reported = json.loads((out / "report.json").read_text(encoding="utf-8"))["reported"]
        evaluation = f"  aum eval {shell_quoted(out)}\n" if reported["clips"] else ""
        echo(
            f"{out}: the model is in {out}/best; report.md and curves.png show how it went. Next:\n"
            f"{evaluation}  aum predict CLIP.wav --model {shell_quoted(out)}"
        )


@command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="a run, a model directory or a packaged model")],
    data: Annotated[
        str | None, typer.Option(help="prepared data, or the URL of shards (default: what the model was trained on)")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val, test or another split of the data (default: the one "
            "that the model's recipe reports on, data.test)"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="folder for the JSON, the scores and the confusion plot (default: the run, if it is one)",
        ),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(help="recordings that hold none of the classes: count false alarms per hour in them"),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="choose a threshold of this precision for each class: thresholds-SPLIT.csv"),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="of annotated recordings: seconds that an event may be apart from an annotated one"),
    ] = 0.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="also write the result to this file; - prints it")
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Say how good a model is on a split: accuracy, mAP, AUC, d-prime, a table of classes and a confusion plot."""
    from aumcli.config import VIEWS
    from aumcli.evaluate import as_json
    from aumcli.evaluate import evaluate as run_evaluation
    from aumcli.report.tables import print_classes, print_events, print_false_alarms, print_metrics, print_thresholds
    from aumcli.utils.files import write_json

    check_folder(out)
    out = out or (model if (model / "best").is_dir() else None)
    _use_threads(threads)
    result = run_evaluation(model, data, split, out, device, background, precision, tolerance)
    if json_file is not None and descriptor(json_file) == 1:
        return _print_json(as_json(result))
    if json_file:
        write_json(json_file, as_json(result))
    split = result.split
    title = f"{model} on {result.data}, {split} split"
    print_metrics(result.metrics, title, calibration_error=result.calibration_error)
    for note in (f"scored of each clip: {VIEWS[str(result.provenance['views'])]}", *result.notes):
        echo(note)
    print_classes(result.metrics, where=f"eval-{split}.json")
    if result.events is not None:
        print_events(result.events)
    if result.false_alarms is not None:
        print_false_alarms(result.false_alarms)
    if result.thresholds:
        print_thresholds(result.thresholds, precision or 0.0)
        if split == "test":
            logger.warning("thresholds that were chosen on the test split flatter every figure of it; --split val")
    if out is not None:
        names = [f"eval-{split}.json", *result.pictures, *([f"thresholds-{split}.csv"] if result.thresholds else [])]
        echo(f"{out}: wrote {', '.join(names)} and scores-{split}.npz, the scores of each clip")
        if result.thresholds:
            path = shell_quoted(out / f"thresholds-{split}.csv")
            echo("Use them, or edit them before:")
            echo(f"  aum predict RECORDING.wav --model {shell_quoted(model)} --thresholds {path}")


@command()
def predict(
    clips: Annotated[
        list[str] | None, typer.Argument(help="sound files, folders, patterns; - for standard input")
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option("--from", help="a text file that names further ones, one a line; - reads standard input"),
    ] = None,
    mic: Annotated[float | None, typer.Option(min=0.1, help="record so many seconds from the microphone")] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            help="a run, a model directory or a packaged model (default: AUM_MODEL, "
            "else the newest run, else the packaged model)",
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="labels per clip (default: 5)")] = None,
    device: Device = "cpu",
    channel: Channel = "mean",
    window: Annotated[
        float | None, typer.Option(help="seconds scored at a time (default: the model's clip)", rich_help_panel=LONG)
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="seconds from one window to the next (default: half a window)", rich_help_panel=LONG),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="one pass over the whole clip instead", rich_help_panel=LONG)
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="least score of an event (default: the model's for each class, else 0.5)", rich_help_panel=LONG
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            help="a CSV file with the columns label and threshold, as aum eval --precision writes it",
            rich_help_panel=LONG,
        ),
    ] = None,
    recorded: Annotated[
        str | None,
        typer.Option(help="how names say when and where, * for anything (default: {site}_%Y%m%d_%H%M%S and the like)"),
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="answer (nothing) for a clip in which no class reaches its threshold")
    ] = False,
    smooth: Annotated[
        int | None, typer.Option(help="average so many windows for events (default: 1)", rich_help_panel=LONG)
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(help="join events of a class that at most so many seconds separate", rich_help_panel=LONG),
    ] = None,
    min_duration: Annotated[
        float | None, typer.Option(help="then leave out events of fewer seconds", rich_help_panel=LONG)
    ] = None,
    from_scores: Annotated[
        Path | None, typer.Option(help="take the scores that --scores kept, instead of sounds", rich_help_panel=LONG)
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="write results to this file; FOLDER/: one file for each input; -: print them",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="table, json, jsonl, csv, parquet, audacity or raven (default: by the file's name)",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="write a page to look at and listen to", rich_help_panel=OUTPUT)
    ] = None,
    review: Annotated[
        int | None,
        typer.Option(min=1, help="the page has so many events, by class and score", rich_help_panel=OUTPUT),
    ] = None,
    embed: Annotated[
        Path | None, typer.Option(help="write embeddings to this .npy or .parquet", rich_help_panel=OUTPUT)
    ] = None,
    embed_windows: Annotated[
        bool, typer.Option("--embed-windows", help="embeddings of windows instead of clips", rich_help_panel=OUTPUT)
    ] = False,
    scores: Annotated[
        Path | None, typer.Option(help="keep the scores of all windows in this .parquet", rich_help_panel=OUTPUT)
    ] = None,
    hours: Annotated[
        Path | None,
        typer.Option(
            help="write events by class and hour of the day to this .csv, and a picture", rich_help_panel=OUTPUT
        ),
    ] = None,
    clips_to: Annotated[
        Path | None,
        typer.Option("--clips", help="cut events out into this folder, by class, best first", rich_help_panel=OUTPUT),
    ] = None,
    clips_each: Annotated[
        int | None, typer.Option(min=1, help="at most so many of a class (default: 100)", rich_help_panel=OUTPUT)
    ] = None,
    clips_pad: Annotated[
        float | None,
        typer.Option(min=0, help="seconds kept on either side of each (default: 0.5)", rich_help_panel=OUTPUT),
    ] = None,
    clips_spread: Annotated[
        bool,
        typer.Option("--clips-spread", help="spread over all scores instead of the best", rich_help_panel=OUTPUT),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="leave out what is done and unchanged", rich_help_panel=OUTPUT)
    ] = False,
    join: Annotated[
        bool, typer.Option("--join", help="join the parts that several processes wrote", rich_help_panel=OUTPUT)
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            help="label the 3rd of 40 shares of the list: 3/40, or slurm in an array job", rich_help_panel=SPEED
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="windows in one go (default: 64, or 128 of fewer than 48 tokens)", rich_help_panel=SPEED
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="threads that decode (default: half the cores, at most 4)", rich_help_panel=SPEED),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="threads that compute (default: the cores, or OMP_NUM_THREADS)", rich_help_panel=SPEED
        ),
    ] = None,
) -> None:
    """Label sounds of any format, rate, length and number, and find events in long ones."""
    from aumcli.checkpoints.lookup import default_model
    from aumcli.classifier import load_model
    from aumcli.predict import find_clips, predict_config
    from aumcli.predict import pipeline as running
    from aumcli.predict.clips import EACH, PAD_S, ClipFolder
    from aumcli.predict.inputs import part_of, record
    from aumcli.predict.outputs import Outputs
    from aumcli.predict.thresholds import read_thresholds
    from aumcli.predict.writers import Format

    config = predict_config(
        top=top,
        window_s=window,
        hop_s=hop,
        whole=whole,
        threshold=threshold,
        thresholds=thresholds and read_thresholds(thresholds),
        recorded=recorded,
        reject=reject,
        smooth=smooth,
        batch_size=batch,
        workers=workers,
        channel=channel,
        max_gap_s=max_gap,
        min_duration_s=min_duration,
    )
    cut_out = None
    if clips_to is not None:
        cut_out = ClipFolder(clips_to, clips_each or EACH, PAD_S if clips_pad is None else clips_pad, clips_spread)
    elif clips_each or clips_pad is not None or clips_spread:
        raise AumError("--clips-each, --clips-pad and --clips-spread need --clips", fix="add --clips FOLDER")
    outputs = Outputs(out, Format.named(format), html, embed, scores, embed_windows, cut_out, review or 0, hours)
    write = partial(echo, end="")
    if from_scores is not None:
        _refuse_with(
            "--from-scores",
            {
                "sounds": clips,
                "--from": listed,
                "--mic": mic,
                "--model": model,
                "--window": window,
                "--hop": hop,
                "--whole": whole,
                "--channel": channel != "mean",
                "--resume": resume,
                "--join": join,
                "--part": part,
            },
        )
        failed = running.run_from_scores(from_scores, config, outputs, write)
    elif join:
        failed = running.join(outputs, write)
    else:
        sources = find_clips(clips or [], listed) + ([record(mic)] if mic else [])
        if not sources:
            raise AumError(
                "there is nothing to label", fix="name sound files or folders, or --from LIST, or --mic SECONDS"
            )
        path, why = (model, "named by --model") if model else default_model()
        logger.info(f"model {path} ({why})")
        _use_threads(threads)
        share = part_of(part) if part else None
        failed = running.run(load_model(path, device), sources, config, outputs, write, resume, share)
    for each in failed:
        print_error(AumError(each["problem"], each["fix"]))
    raise typer.Exit(1 if failed else 0)


@command()
def bench(
    files: Annotated[list[Path] | None, typer.Argument(help="with --compare: results of several machines")] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="what to compare: aum-SIZE, ast-SIZE, ast-SIZE-eager (attention without a fused kernel), "
            "model directories (default: base and small of each)"
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="measure up to so many patches per clip")] = 2048,
    min_tokens: Annotated[int, typer.Option(help="start with so many, then double")] = 512,
    mode: Annotated[str, typer.Option(help="inference, training or both: inference,training")] = "inference",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or several")] = "float32",
    batch: Annotated[int, typer.Option(min=1, help="clips at a time")] = 1,
    precision: Annotated[
        float, typer.Option(min=0, help="repeat until the median's relative standard error is at most this")
    ] = 0.01,
    repeats: Annotated[int, typer.Option(min=1, help="timed runs per measurement at most")] = 50,
    budget: Annotated[
        float, typer.Option(min=0, help="seconds per measurement; three timed runs are made in any case")
    ] = 60.0,
    memory_cap: Annotated[
        float | None,
        typer.Option(min=0.001, help="GiB: what needs more counts as out of memory, as on a smaller device"),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="instead, compare results: aum bench --compare a.json b.json")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="folder for the results: JSON with every sample, CSV, Markdown, a picture"),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Time AuM beside AST on this machine, by number of tokens: a second at 10 ms per frame has 50."""
    from aumcli import bench as module
    from aumcli.report.tables import print_table

    check_folder(out)
    if files and not compare:
        raise AumError("only --compare takes files", fix="leave them out, or add --compare")
    if memory_cap is not None and compare:
        raise AumError("--memory-cap is for measuring, not for --compare", fix="leave out one of them")
    _use_threads(threads)
    if compare:
        results = module.join_results(files or [], out)
        echo("\n".join(module.machine_lines(results)) + "\n")
        columns, rows = module.comparison_table(results)
        if rows:
            print_table("", columns, rows)
        else:
            echo("they have no measurement in common: no model was measured on both at the same length, mode and type")
    else:
        sweep = module.Sweep(
            models.split(",") if models else module.MODELS,
            min_tokens,
            max_tokens,
            mode.split(","),
            dtype.split(","),
            device,
            batch,
            module.StoppingRule(precision, repeats, budget),
            memory_cap,
        )
        _echo_lines(module.measurement_lines(module.bench(sweep, out), sweep.stopping_rule))
    if out is not None:
        echo(f"{out}: wrote the results")


@command()
def ablate(
    recipe: Annotated[str | None, typer.Option(help="a recipe's name or a .toml file (default: quickstart)")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="prepared data (default: data/<the recipe's corpus>); with --table "
            "the folder that holds the corpora (default: data)"
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="an axis: --grid model.cls_position=head,mid,end; repeatable  "
            "(default: the paper's Table 2, directions by CLS positions)"
        ),
    ] = None,
    models: Annotated[str | None, typer.Option(help="compare architectures with equal parameters: aum,ast")] = None,
    table: Annotated[
        int | None,
        typer.Option(help="instead, make one of the paper's tables again: 1, 2, 3 or 4", rich_help_panel=PAPER),
    ] = None,
    corpora: Annotated[
        str | None, typer.Option(help="of the table: as20k,vggsound (default: all)", rich_help_panel=PAPER)
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="of the table, by their names there: AuM-B/16 (default: all)", rich_help_panel=PAPER),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(help="the checkpoint that an architecture's runs start from: --init aum=PATH --init ast=PATH"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="runs per cell")] = 3,
    set_: Annotated[list[str] | None, typer.Option("--set", help="change a value in all cells; repeatable")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="folder for the runs and the tables (default: ablations/<recipe>, ablations/table-N)"
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="runs at a time (default: what keeps the processors busy; on a GPU, 1)")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="threads of each run, however many run at a time: they decide how sums round")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say which runs there are and how long they take; write nothing")
    ] = False,
    device: Device = "cpu",
) -> None:
    """Train and test a grid of variants, or a table of the paper; the same command again continues where it stopped."""
    from aumcli import ablate as module

    check_folder(out)
    if table is not None and (recipe or grid or models):
        raise AumError(
            "--table brings its own recipes and grid, so --recipe, --grid and --models can't go with it",
            fix="leave them out",
        )
    if table is None and (corpora or rows):
        raise AumError("--corpora and --rows choose from a table", fix="name it: --table 1")
    name = f"table-{table}" if table else Path(recipe or "quickstart").stem
    out = out or Path("ablations") / name
    overrides, checkpoints = set_ or [], init or []
    if table is None:
        architectures = models.split(",") if models else []
        axes = grid or ([] if models else module.TABLE_2)
        planned = module.plan_ablation(
            recipe or "quickstart", out, data, axes, seeds, overrides, architectures, checkpoints
        )
        grids = [planned]
        run: Callable[..., module.Ablation | module.PaperTable] = partial(module.ablate, planned)
    else:
        chosen, chosen_rows = (text.split(",") if text else [] for text in (corpora, rows))
        table_plan = module.plan_table(
            table, out, data or module.DATA, chosen, chosen_rows, seeds, overrides, checkpoints
        )
        grids, out, run = table_plan.grids, table_plan.folder, partial(module.ablate_table, table_plan)
    if dry_run:
        return _echo_lines(module.dry_run(grids, device, jobs, threads))
    try:
        result = run(device, jobs, threads)
    except KeyboardInterrupt:
        raise AumError("stopped; finished runs are kept", fix="the same command continues", exit_code=130) from None
    module.print_result(result)
    echo(f"{out}: wrote ablation.md, .json, .csv, .tex" + (" and .png" if result.has_heat_map else ""))
    raise typer.Exit(1 if result.failed else 0)


@command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="the authors' AuM or AST, a ViM or DeiT of ImageNet, an AST of transformers, a model, hf://owner/name"
        ),
    ],
    out: Annotated[
        str, typer.Argument(help="directory to write; a model also as FILE.onnx, FILE.pt2 or hf://owner/name")
    ],
    to: Annotated[To, typer.Option(help="what to write")] = To.MODEL,
    cls_position: Annotated[
        str, typer.Option(help="where an AuM or ViM has its class token: head, mid or end")
    ] = "mid",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="what a published .pth was trained by: its frontend, scores and "
            "evaluation views (needed unless it has 527 classes)"
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="table of class names in the checkpoint's order: the authors', EPIC_Sounds_train.csv or a labels.csv"
        ),
    ] = None,
    new_head: Annotated[bool, typer.Option("--new-head", help="draw a head for other classes, to be trained")] = False,
    frames: Annotated[
        int | None,
        typer.Option(help="frames of the spectrogram; positions are resized to them (default: the checkpoint's)"),
    ] = None,
    heads: Annotated[int | None, typer.Option(help="attention heads of an AST (default: width / 64)")] = None,
    activation: Annotated[
        str | None, typer.Option(help="softmax or sigmoid (default: the recipe's; sigmoid for 527 classes)")
    ] = None,
) -> None:
    """Turn somebody's checkpoint into a model directory; sizes and direction are read off its tensors."""
    from aumcli.convert import convert as run
    from aumcli.report.tables import print_table

    rows = run(source, out, cls_position, labels, new_head, frames, heads, activation, to, recipe)
    print_table("", ("what", "value"), rows)


@command()
def info(
    name: Annotated[
        str | None,
        typer.Argument(help="`recipes`, a recipe, a run, a model, or of the paper table1 to table5 and figure2"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is installed and which kernels run; with a name, recipes, a run, a model or a table of the paper."""
    from aumcli import info as facts
    from aumcli.recipe import Recipe, dump_recipe
    from aumcli.report.tables import text_columns

    if name is None:
        rows = facts.installed()
        _print_json(dict(rows)) if as_json else echo("\n".join(text_columns(rows, 18)))
    elif name == "recipes":
        _print_json(facts.recipes()) if as_json else echo("\n".join(facts.recipe_lines()))
    elif page := facts.page_name(name):
        table = facts.published(page)
        _print_json(table) if as_json else echo("\n".join(facts.published_lines(table)))
    else:
        shown, model = facts.about(name), facts.namesake(name)
        if as_json:
            return _print_json(shown.model_dump(mode="json") | model)
        if not isinstance(shown, Recipe):
            return echo("\n".join(facts.model_lines(name)))
        echo("\n".join([dump_recipe(shown), *map(facts.namesake_lines, model.values())]))


def _dry_run(recipe, out: Path, data, device: str, threads: int | None) -> None:
    """Print what a training would do; where its data is prepared, also what it would meet and how long it takes."""
    from aumcli.plan import dry_run
    from aumcli.report.tables import text_columns

    rows, fitted = dry_run(recipe, data)
    echo("\n".join(text_columns(rows, 10)))
    if fitted is not None:
        from aumcli.train.dry_run import dry_run_training

        _use_threads(threads)
        echo("\n".join(text_columns(dry_run_training(fitted, out, data, device).rows(), 10)))


def _refuse_with(option: str, others: dict[str, object]) -> None:
    """Raise the AumError of others that say what was decided when the scores were made."""
    if given := [name for name, value in others.items() if value]:
        raise AumError(
            f"{option} goes with scores that are made, so {', '.join(given)} can't change them",
            fix="leave out one or the other",
        )


def _use_threads(threads: int | None) -> None:
    """Compute in so many threads; None: torch chooses."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def _overrides(settings: list[str] | None, given: dict[str, object]) -> list[str]:
    """--set together with what other options give for a key."""
    return (settings or []) + [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items() if value is not None
    ]


def _without(arguments: list[str], option: str) -> list[str]:
    """Arguments of a call without an option and its value."""
    kept = [text for text in arguments if not text.startswith(f"{option}=")]
    while option in kept:
        del kept[kept.index(option) : kept.index(option) + 2]
    return kept


def _echo_lines(lines: Iterable[str]) -> None:
    for line in lines:
        echo(line)


def _print_json(value: object) -> None:
    echo(to_json(value, indent=2))


def main() -> None:
    """Run the command line; a mistake of the user's is one message, not a stack trace."""
    keep_memory()
    open_streams()
    try:
        try:
            code = app(standalone_mode=False) or 0
        except SystemExit as end:
            code = end.code or 0
        close_output()
    except AumError as error:
        code = _told(error)
    except Exception as error:
        has_shown_help = type(error).__name__ == "NoArgsIsHelpError"
        code = 2 if has_shown_help else _told(_usage_error(error) or as_message(error))
    if code:
        sys.exit(code)


def _usage_error(error: Exception) -> AumError | None:
    """What typer says about the call; None where it is another kind of error."""
    if not hasattr(error, "format_message"):  # its classes have another home in each of its versions
        return None
    from aumcli.usage import usage_error

    return usage_error(error, sys.argv[1:])


def _told(error: AumError) -> int:
    """Print an error; its exit code."""
    print_error(error)
    with suppress(AumError):  # it may be the error
        close_output()
    return error.exit_code
