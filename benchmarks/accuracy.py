"""How accurate models are on a prepared folder: the recipe's, an AST of its size, a plain CNN, a linear model.

    python benchmarks/accuracy.py data/mine [--recipe quickstart] [--seeds 0,1,2] [--set train.epochs=30] > accuracy.md

All have the same clips, features and augmentation, that of the recipe or the one that its training chose, and the CNN
as many epochs as fit into the seconds that the recipe's training took. Each network's epoch is chosen on the
validation split; the split that the recipe reports on is scored once, at the end.

The CNN: one 3 x 3 convolution with stride 2, three pairs of convolutions with batch norm, ReLU and max pooling, 24 to
128 channels, the mean over the map; AdamW, 2e-3, warm-up and cosine, label smoothing 0.1, no average of the weights.
The linear model: logistic regression on mean and standard deviation of each mel band.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from harness import parser_of, prepare_tones, print_environment, print_section
from torch import Tensor, nn

from aumcli.checkpoints import read_model
from aumcli.classifier import Classifier
from aumcli.core import n_parameters
from aumcli.core.network import SpectrogramNetwork
from aumcli.data.clips import Clip
from aumcli.data.manifest import Manifest, read_manifest
from aumcli.data.splits import split_clips
from aumcli.evaluate import score_clips
from aumcli.metrics import evaluate_scores
from aumcli.recipe import Recipe, load_recipe
from aumcli.train import train
from aumcli.train.comparison import linear_scores
from aumcli.train.distributed import ProcessGroup
from aumcli.train.loggers import Loggers
from aumcli.train.optim import make_optimizer
from aumcli.train.setup import TrainState, build
from aumcli.train.signals import StopSignal
from aumcli.train.trainer import train_epoch

MODELS = ("recipe", "ast", "cnn", "linear")
CHANNELS = (24, 48, 96, 128)
CPU = torch.device("cpu")


class CNN(SpectrogramNetwork):
    """The plain convolutional network; `config` is that of the network in whose place it stands."""

    def __init__(self, network: SpectrogramNetwork):
        super().__init__()
        self.config = network.config
        layers: list[nn.Module] = [nn.Conv2d(1, CHANNELS[0], 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(CHANNELS[0]), nn.ReLU()]
        for before, width in pairwise(CHANNELS):
            for channels in (before, width):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.convs = nn.Sequential(*layers)
        self.head = nn.Linear(CHANNELS[-1], network.config.n_classes)

    def forward_features(self, features: Tensor) -> Tensor:
        """Encode features (b, frames, mels) to the mean of the last map, (b, channels)."""
        maps: Tensor = self.convs(features[:, None])
        return maps.mean((2, 3))

    def classify(self, embedding: Tensor) -> Tensor:
        """Map an embedding (b, channels) to logits (b, classes)."""
        logits: Tensor = self.head(embedding)
        return logits

    def backend_on(self, device: torch.device) -> str:
        """It has torch's operators only."""
        return "torch"


def score(classifier: Classifier, manifest: Manifest, clips: Sequence[Clip]) -> float:
    """The metric of a model on some clips: accuracy, or mAP where a clip can have several labels."""
    return metric(np.concatenate([*score_clips(classifier, clips)]), manifest, clips)


def metric(scores: np.ndarray, manifest: Manifest, clips: Sequence[Clip]) -> float:
    """The metric of scores (clips, classes)."""
    targets = manifest.targets(clips)
    metrics = evaluate_scores(scores, targets if manifest.multi_label else targets.argmax(1), manifest.label_names)
    return metrics.mean_average_precision if manifest.multi_label else float(metrics.accuracy or 0.0)


def train_cnn(recipe: Recipe, data: Path, out: Path, seconds: float) -> TrainState:
    """Train the CNN with the recipe's data, features and augmentation for about so many seconds.

    The first epoch, whose result is thrown away, says how many fit.

    Returns:
        The state, with the weights of the best epoch.
    """
    recipe = recipe.with_values(train={"ema": 0.0, "lr": 2e-3, "weight_decay": 0.05, "label_smoothing": 0.1})
    epochs = 1
    for measuring in (True, False):
        started = time.perf_counter()
        state = _cnn_state(recipe.with_values(train={"epochs": epochs, "warmup_epochs": epochs / 10}), data, out)
        best: dict[str, Tensor] = {}
        with Loggers(state) as loggers:
            for epoch in range(epochs):
                train_epoch(state, StopSignal(), loggers)
                if state.best == epoch + 1:
                    best = copy.deepcopy(state.network.state_dict())
        if measuring:
            epochs = max(1, min(recipe.train.epochs, round(seconds / (time.perf_counter() - started))))
    state.network.load_state_dict(best)
    return state


def _cnn_state(recipe: Recipe, data: Path, out: Path) -> TrainState:
    """The state of a training with the CNN in the place of the recipe's network."""
    state, _, _ = build(recipe, out, data, CPU, ProcessGroup(), progress=False)
    state.network = CNN(state.network)
    state.classifier = state.classifier.with_network(state.network)
    state.optimizer = make_optimizer(state.network, state.recipe.train)
    state.short = True
    return state


def measure(recipe: Recipe, ast: Recipe, data: Path, models: Sequence[str], folder: Path) -> dict[str, list[float]]:
    """Metric on the reported split, seconds of training, epochs and parameters of each model, for the recipe's seed."""
    manifest = read_manifest(data)
    clips = split_clips(manifest, recipe.data.reported, recipe.data.test_group)
    results: dict[str, list[float]] = {}
    started = time.perf_counter()
    train(recipe, folder / "recipe", data, progress=False)
    seconds = time.perf_counter() - started
    network, config = read_model(folder / "recipe" / "best")
    classifier = Classifier(network, config, "recipe", CPU)
    fitted = load_recipe(folder / "recipe" / "recipe.toml")
    results["recipe"] = [score(classifier, manifest, clips), seconds, fitted.train.epochs, n_parameters(network)]
    if "ast" in models:
        ast = ast.with_values(augment={"policy": fitted.augment.policy})
        started = time.perf_counter()
        train(ast, folder / "ast", data, progress=False)
        seconds_ast = time.perf_counter() - started
        network, config = read_model(folder / "ast" / "best")
        reached = score(Classifier(network, config, "ast", CPU), manifest, clips)
        results["ast"] = [reached, seconds_ast, fitted.train.epochs, n_parameters(network)]
    if "cnn" in models:
        started = time.perf_counter()
        state = train_cnn(fitted, data, folder / "cnn", seconds)
        reached = score(state.classifier, manifest, clips)
        epochs = len(state.history)
        results["cnn"] = [reached, time.perf_counter() - started, epochs, n_parameters(state.network)]
    if "linear" in models:
        started = time.perf_counter()
        train_clips = split_clips(manifest, recipe.data.train, recipe.data.test_group)
        scores = linear_scores(classifier.frontend, manifest, train_clips, clips)
        results["linear"] = [metric(scores, manifest, clips), time.perf_counter() - started, 0, 0]
    return results


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="a prepared folder")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {', '.join(MODELS)}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], help="as of aum train")
    options = parser.parse_args()
    models, seeds = options.models.split(","), options.seeds.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        data, settings = options.data, options.set
        if options.smoke:
            data, seeds = prepare_tones(Path(temporary)), ["0"]
            settings = ["train.epochs=1", "augment.policy=gentle", "model.width=32"]
        if data is None:
            parser.error("name a prepared folder")
        print_environment()
        runs = []
        for seed in seeds:
            recipe = load_recipe(options.recipe, [*settings, f"seed={seed}"])
            ast = load_recipe(options.recipe, [*settings, f"seed={seed}", "model.architecture=ast"])
            runs.append(measure(recipe, ast, data, models, Path(temporary) / seed))
    rows = []
    for name in runs[0]:
        reached, seconds, epochs, parameters = zip(*(run[name] for run in runs))
        mean = f"{100 * statistics.mean(reached):.1f} %"
        each = ", ".join(f"{100 * value:.1f}" for value in reached)
        what = recipe.model.describe() if name == "recipe" else ast.model.describe() if name == "ast" else name
        size = [f"{int(parameters[0]):,}", f"{int(epochs[0])}"] if parameters[0] else ["-", "-"]
        rows.append([what, mean, each, f"{statistics.median(seconds):.0f}", *size])
    threads = f"{torch.get_num_threads()} threads, float32, seeds {', '.join(seeds)}"
    columns = ("model", "mean", "each seed", "seconds", "parameters", "epochs")
    print_section(f"{data.name}, split {recipe.data.reported}; {threads}", columns, rows)


if __name__ == "__main__":
    main()
