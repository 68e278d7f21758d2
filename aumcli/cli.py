"""The `aum` command: one short function per subcommand. Heavy imports stay inside them, so that --help is quick."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aumcli.errors import AumError
from aumcli.memory import keep_memory

app = typer.Typer(
    name="aum", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Audio classification with Audio Mamba: prepare data, train, evaluate, predict, compare.")

Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto (a GPU where there is one)")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


class Format(StrEnum):
    """What `aum predict` prints."""

    TABLE = "table"
    JSON = "json"


class To(StrEnum):
    """What `aum convert` writes."""

    MODEL = "model"
    TRANSFORMERS = "transformers"


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
    resume: Annotated[bool, typer.Option(help="go on where the run in --out was saved last")] = False,
    device: Device = "cpu",
    devices: Annotated[int, typer.Option(min=1, help="train on so many GPUs, or in so many processes on the CPU")] = 1,
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
    if devices > 1:
        from aumcli.train.team import launch

        raise typer.Exit(launch(devices, _without(sys.argv[1:], "--devices")))
    from aumcli.train import train as run_training
    from aumcli.train.team import one_voice

    try:
        with one_voice():
            run_training(loaded, out, data, resume=resume, device=device, say=typer.echo)
    except KeyboardInterrupt:
        raise AumError("stopped at once; what was saved is kept", fix=f"go on with aum train --resume --out {out}",
                       exit_code=130) from None
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        typer.echo(f"{out}: the model is in {out}/best; report.md and curves.png show how it went. Next:\n"
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
    clips: Annotated[list[Path], typer.Argument(help="sound files and folders of them")],
    model: Annotated[Path | None, typer.Option(help="a run, a model directory or a packaged model  [default: AUM_MODEL, "
                                               "else the newest run, else the packaged model]")] = None,
    top: Annotated[int, typer.Option(min=1, help="labels per clip")] = 3,
    format: Annotated[Format, typer.Option(help="what to print")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="write the JSON to this file instead")] = None,
    device: Device = "cpu",
) -> None:
    """Label sound files: any format, rate and length."""
    from aumcli.classifier import default_model, load_model
    from aumcli.files import check_writable, write_json
    from aumcli.predict import find_clips, predict_files
    from aumcli.progress import progress
    from aumcli.report import print_predictions

    found = find_clips(clips)
    if out is not None:
        check_writable(out)
    path, why = (model, "named by --model") if model else default_model()
    typer.echo(f"model {path} ({why})", err=True)
    classifier = load_model(path, device)
    results = list(progress(predict_files(classifier, found, top), "predicting", len(found)))
    failed = [result for result in results if result.problem]
    document = {"model": str(path), "backend": classifier.backend, "device": str(classifier.device), "dtype": "float32",
                "clips": [result.to_dict() for result in results if not result.problem],
                "failed": [result.to_dict() for result in failed]}
    if out is not None:
        write_json(out, document)
    elif format is Format.JSON:
        _print_json(document)
    elif len(failed) < len(results):
        print_predictions([(r.path, None, None, list(r.labels)) for r in results if not r.problem])
    for result in failed:
        _print_error(AumError(result.problem, result.fix))
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
    source: Annotated[Path, typer.Argument(help="the authors' AuM or AST, a ViM or DeiT of ImageNet, an AST of transformers, a model")],
    out: Annotated[Path, typer.Argument(help="directory to write")],
    to: Annotated[To, typer.Option(help="what to write")] = To.MODEL,
    cls_position: Annotated[str, typer.Option(help="where an AuM or ViM has its class token: head, mid or end")] = "mid",
    labels: Annotated[Path | None, typer.Option(help="table of class names, such as class_labels_indices.csv")] = None,
    new_head: Annotated[bool, typer.Option("--new-head", help="draw a head for other classes, to be trained")] = False,
    frames: Annotated[int | None, typer.Option(help="frames of the spectrogram; positions are resized to them  [default: the checkpoint's]")] = None,
    heads: Annotated[int | None, typer.Option(help="attention heads of an AST  [default: width / 64]")] = None,
    activation: Annotated[str | None, typer.Option(help="softmax or sigmoid  [default: sigmoid for 527 classes]")] = None,
) -> None:
    """Turn somebody's checkpoint into a model directory; sizes and direction are read off its tensors."""
    from aumcli.convert import convert as run
    from aumcli.report import print_table

    print_table("", ("what", "value"), run(source, out, cls_position, labels, new_head, frames, heads, activation, to))


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


def _without(arguments: list[str], option: str) -> list[str]:
    """Arguments of a call without an option and its value."""
    kept = [text for text in arguments if not text.startswith(f"{option}=")]
    while option in kept:
        del kept[kept.index(option) : kept.index(option) + 2]
    return kept


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
