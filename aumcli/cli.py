"""The `aum` command: one short function per subcommand. Heavy imports stay inside them, so that --help is quick."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from aumcli.errors import AumError
from aumcli.memory import keep_memory

app = typer.Typer(
    name="aum", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Audio classification with Audio Mamba: prepare data, train, evaluate, predict, compare.")

Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto (a GPU where there is one)")]
LONG, OUTPUT, SPEED = "Long sounds", "Output", "Speed"
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


@app.command()
def prepare(
    corpus: Annotated[str, typer.Argument(help="synth, fsdd or folder")],
    folder: Annotated[Path | None, typer.Argument(help="for `folder`: your sounds, one sub-folder per class")] = None,
    out: Annotated[Path | None, typer.Option(help="where to  [default: data/CORPUS]")] = None,
    source: Annotated[Path | None, typer.Option(help="archive or folder to take the corpus from, instead of downloading")] = None,
    split: Annotated[str | None, typer.Option(help="percent of train/val/test, such as 80/10/10")] = None,
    seed: Annotated[int, typer.Option(help="chooses among random splits or sounds")] = 0,
    strict: Annotated[bool, typer.Option(help="stop at unusable files instead of leaving them out")] = False,
    as_json: Json = False,
) -> None:
    """Download or take a corpus, open every clip once, and index it: writes data/CORPUS/."""
    from dataclasses import asdict

    from aumcli.prepare import prepare as prepare_corpus
    from aumcli.report import print_prepared

    if folder is not None and source is not None:
        raise AumError("both a folder and --source were given", fix="give one of them")
    report = prepare_corpus(corpus, out, source=folder or source, split=split, seed=seed, strict=strict)
    _print_json(asdict(report)) if as_json else print_prepared(report)
    raise typer.Exit(1 if report.left_out else 0)


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help="a recipe's name (aum info recipes) or a .toml file")] = "quickstart",
    data: Annotated[Path | None, typer.Option(help="prepared data  [default: data/<the recipe's corpus>]")] = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder  [default: runs/<recipe or data>]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="change a value: --set train.epochs=5; repeatable")] = None,
    seed: Annotated[int | None, typer.Option(help="decides every random draw  [default: the recipe's, 0]")] = None,
    resume: Annotated[bool, typer.Option(help="go on after the last finished epoch of the run in --out")] = False,
    device: Device = "cpu",
) -> None:
    """Train a model on prepared data: writes runs/NAME/."""
    from aumcli.recipe import load_recipe

    overrides = (set_ or []) + ([] if seed is None else [f"seed={seed}"])
    loaded = load_recipe(recipe, overrides)  # before torch: a mistake in a recipe is said at once
    if resume and overrides:
        raise AumError("--resume goes on with the run's own recipe, so --set and --seed can't change it",
                       fix="leave them out, or start a new run with another --out")
    name = data.resolve().name if data and recipe == "quickstart" else Path(recipe).stem
    out = out or Path("runs") / name
    from aumcli.train import train as run_training

    try:
        run_training(loaded, out, data, resume=resume, device=device, say=typer.echo)
    except KeyboardInterrupt:
        raise AumError("stopped; the finished epochs are kept", fix=f"go on with the same command and --resume --out {out}",
                       exit_code=130) from None
    typer.echo(f"{out}: the model is in {out}/best; curves.png and report.json show how it went. Next:\n"
               f"  aum eval {out}\n  aum predict CLIP.wav --model {out}")


@app.command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="a run, a model directory or a packaged model")],
    data: Annotated[Path | None, typer.Option(help="prepared data  [default: what the model was trained on]")] = None,
    split: Annotated[str, typer.Option(help="train, val, test or another split of the data")] = "test",
    out: Annotated[Path | None, typer.Option(help="folder for the JSON and the confusion plot  [default: the run, if it is one]")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the result to this file; - prints it")] = None,
    device: Device = "cpu",
) -> None:
    """Say how good a model is on a split: accuracy, mAP, AUC, d-prime, a table of classes and a confusion plot."""
    from aumcli.evaluate import as_json, evaluate as run_evaluation
    from aumcli.files import write_json
    from aumcli.report import print_classes, print_metrics

    out = out or (model if (model / "best").is_dir() else None)
    result = run_evaluation(model, data, split, out, device)
    if str(json_file) == "-":
        return _print_json(as_json(result))
    if json_file:
        write_json(json_file, as_json(result))
    print_metrics(result.metrics, f"{model} on {result.data}, {split} split")
    print_classes(result.metrics, where=f"eval-{split}.json")
    if out is not None:
        typer.echo(f"{out}: wrote eval-{split}.json" + (f" and confusion-{split}.png" if result.metrics.confusion is not None else ""))


@app.command()
def predict(
    clips: Annotated[list[str] | None, typer.Argument(help="sound files, folders, patterns; - for standard input")] = None,
    listed: Annotated[Path | None, typer.Option("--from", help="a text file that names further ones, one a line")] = None,
    mic: Annotated[float | None, typer.Option(min=0.1, help="record so many seconds from the microphone")] = None,
    model: Annotated[Path | None, typer.Option(help="a run, a model directory or a packaged model  [default: AUM_MODEL, "
                                               "else the newest run, else the packaged model]")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="labels per clip (default: 5)")] = None,
    device: Device = "cpu",
    window: Annotated[float | None, typer.Option(help="seconds scored at a time (default: the model's clip)", rich_help_panel=LONG)] = None,
    hop: Annotated[float | None, typer.Option(help="seconds from one window to the next (default: half a window)", rich_help_panel=LONG)] = None,
    whole: Annotated[bool, typer.Option("--whole", help="one pass over the whole clip instead", rich_help_panel=LONG)] = False,
    threshold: Annotated[float | None, typer.Option(help="least score of an event (default: the model's for each class, else 0.5)",
                                                    rich_help_panel=LONG)] = None,
    smooth: Annotated[int | None, typer.Option(help="average so many windows for events (default: 1)", rich_help_panel=LONG)] = None,
    out: Annotated[str | None, typer.Option(help="write results to this file; FOLDER/: one file for each input", rich_help_panel=OUTPUT)] = None,
    format: Annotated[str | None, typer.Option(help="table, json, jsonl, csv, parquet, audacity or raven (default: by the file's name)",
                                               rich_help_panel=OUTPUT)] = None,
    html: Annotated[Path | None, typer.Option(help="write a page to look at and listen to", rich_help_panel=OUTPUT)] = None,
    embed: Annotated[Path | None, typer.Option(help="write embeddings to this .npy or .parquet", rich_help_panel=OUTPUT)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="leave out what is done and unchanged", rich_help_panel=OUTPUT)] = False,
    join: Annotated[bool, typer.Option("--join", help="join the parts that processes of torchrun wrote", rich_help_panel=OUTPUT)] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="windows in one go (default: 64)", rich_help_panel=SPEED)] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="threads that decode (default: 2)", rich_help_panel=SPEED)] = None,
) -> None:
    """Label sounds of any format, rate, length and number, and find events in long ones."""
    from aumcli.classifier import default_model, load_model
    from aumcli.predict import find_clips, predict_config, run as running
    from aumcli.predict.inputs import record

    config = predict_config(top=top, window_s=window, hop_s=hop, whole=whole, threshold=threshold, smooth=smooth, batch_size=batch,
                            workers=workers)
    outputs = running.Outputs(out, running.Format.named(format), html, embed)
    emit, say = partial(typer.echo, nl=False), partial(typer.echo, err=True)
    if join:
        failed = running.join(outputs, emit, say)
    else:
        sources = find_clips(clips or [], listed) + ([record(mic)] if mic else [])
        if not sources:
            raise AumError("there is nothing to label", fix="name sound files or folders, or --from LIST, or --mic SECONDS")
        path, why = (model, "named by --model") if model else default_model()
        say(f"model {path} ({why})")
        failed = running.run(load_model(path, device), sources, config, outputs, resume, emit, say)
    for each in failed:
        _print_error(AumError(each["problem"], each["fix"]))
    raise typer.Exit(1 if failed else 0)


@app.command()
def bench(
    models: Annotated[str, typer.Option(help="what to compare: aum or ast, a size, and -eager for attention without a fused "
                                             "kernel")] = "aum-base,ast-base",
    max_tokens: Annotated[int, typer.Option(help="measure up to so many patches per clip")] = 2048,
    min_tokens: Annotated[int, typer.Option(help="start with so many, then double")] = 512,
    mode: Annotated[str, typer.Option(help="inference or training")] = "inference",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    batch: Annotated[int, typer.Option(min=1, help="clips at a time")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="timed runs per point")] = 7,
    budget: Annotated[float, typer.Option(help="seconds per point, after three runs")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="folder for bench.json, with every sample")] = None,
    device: Device = "cpu",
) -> None:
    """Time AuM beside AST on this machine, by number of tokens: a second at 10 ms per frame has 50."""
    from aumcli.bench import bench as run_bench
    from aumcli.report import bench_header, bench_line

    names = models.split(",")
    for number, points in enumerate(run_bench(names, max_tokens, min_tokens, mode, dtype, device, batch, repeats, budget, out)):
        setting = points[0].setting
        if number == 0:
            typer.echo(f"{mode}, {dtype}, {device}, batch {batch}, {setting.threads} threads, seed {setting.seed}; medians of up to {repeats}\n"
                       + bench_header(names))
        typer.echo(bench_line(points))
    if out is not None:
        typer.echo(f"{out}: wrote bench.json")


@app.command()
def ablate(
    recipe: Annotated[str, typer.Option(help="a recipe's name or a .toml file")] = "quickstart",
    data: Annotated[Path | None, typer.Option(help="prepared data  [default: data/<the recipe's corpus>]")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="an axis: --grid model.cls_position=head,mid,end; repeatable  "
                                                   "[default: the paper's Table 2, directions by CLS positions]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="runs per cell")] = 3,
    set_: Annotated[list[str] | None, typer.Option("--set", help="change a value in all cells; repeatable")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the runs and the table  [default: ablations/<recipe>]")] = None,
    device: Device = "cpu",
) -> None:
    """Train and test a grid of variants; the same command again goes on where it stopped."""
    from aumcli.ablate import TABLE_2, ablate as run_ablation, table
    from aumcli.report import print_table

    out = out or Path("ablations") / Path(recipe).stem
    cells = run_ablation(recipe, out, data, grid or TABLE_2, seeds, set_ or [], device, say=typer.echo)
    print_table(f"{recipe}, test split, {seeds} seeds", *table(cells))
    typer.echo(f"{out}: wrote ablation.json and ablation.md")
    raise typer.Exit(1 if any(cell.failures for cell in cells) else 0)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="the authors' .pth of an AuM or AST")],
    out: Annotated[Path, typer.Argument(help="model directory to write")],
    cls_position: Annotated[str, typer.Option(help="where an AuM has its class token: head, mid or end")] = "mid",
    labels: Annotated[Path | None, typer.Option(help="table of class names, such as class_labels_indices.csv")] = None,
    frames: Annotated[int | None, typer.Option(help="frames of the spectrogram  [default: 1024 if it fits]")] = None,
    heads: Annotated[int | None, typer.Option(help="attention heads of an AST  [default: width / 64]")] = None,
    activation: Annotated[str | None, typer.Option(help="softmax or sigmoid  [default: sigmoid for 527 classes]")] = None,
) -> None:
    """Turn a published checkpoint into a model directory; sizes and direction are read off its tensors."""
    from aumcli.convert import convert as run
    from aumcli.report import print_table

    print_table("", ("what", "value"), run(source, out, cls_position, labels, frames, heads, activation))


@app.command()
def info(name: Annotated[str | None, typer.Argument(help="`recipes`, a recipe, a run or a model")] = None) -> None:
    """Show what is installed and which kernels can run; with a name, the recipes, one recipe or one model."""
    from aumcli import info as facts
    from aumcli.report import print_table

    if name is None:
        print_table("", ("what", "value"), facts.installed())
    elif name == "recipes":
        print_table("recipes", ("name", "corpus", "model", "training"), facts.recipes())
    else:
        typer.echo(facts.about(name))


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _print_error(error: AumError) -> None:
    typer.echo(f"error: {error.problem}" + (f"\n  fix: {error.fix}" if error.fix else ""), err=True)


def main() -> None:
    """Run the command line; a mistake of the user's is one message, not a stack trace."""
    keep_memory()
    try:
        app()
    except AumError as error:
        _print_error(error)
        sys.exit(error.exit_code)
