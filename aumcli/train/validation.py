"""Scores, loss and metrics of the validation split, computed by all processes together."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from aumcli.core.network import SpectrogramNetwork
from aumcli.evaluate import score_clips
from aumcli.metrics import Metrics, class_indices, evaluate_scores
from aumcli.train.setup import TrainState


def validation_scores(
    state: TrainState, network: SpectrogramNetwork | None = None, highest: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Score the validation clips.

    Args:
        state: of the training.
        network: whose scores; None: those of the weights that are evaluated and saved.
        highest: give the highest score among the windows of a clip instead of their mean.

    Returns:
        Scores and targets, (clips, classes) float32 each, gathered from all processes.
    """
    classifier = state.classifier if network is None else state.classifier.with_network(network)
    batches = (
        [*score_clips(classifier, state.val.clips, state.val, highest)]
        if state.embeddings is None
        else [state.embeddings.validation_scores(classifier, highest)]
    )
    own = np.concatenate(batches) if batches else np.empty((0, len(state.manifest.labels)), dtype=np.float32)
    clips = state.val_clips
    scores, targets = np.empty((len(clips), own.shape[1]), dtype=np.float32), state.manifest.targets(clips)
    for rank, share in enumerate(state.process_group.gather(own)):
        scores[rank :: state.process_group.size] = share
    return scores, targets


def validation_metrics(state: TrainState, scores: np.ndarray, targets: np.ndarray, intervals: bool = False) -> Metrics:
    """Metrics of scores (clips, classes); with confidence intervals where asked for, which takes longer."""
    truth = targets if state.manifest.multi_label else class_indices(targets)
    return evaluate_scores(scores, truth, state.classifier.labels, intervals=intervals, background=state.has_background)


def validate(state: TrainState) -> dict[str, float | None]:
    """Loss and the metric that chooses the best epoch, as columns of metrics.csv; None where one is undefined."""
    scores, targets = validation_scores(state)
    probabilities = torch.from_numpy(scores).double().clamp(1e-12, 1 - 1e-12)  # (clips, classes)
    truth = torch.from_numpy(targets).double()
    if state.recipe.train.loss == "bce":
        loss = F.binary_cross_entropy(probabilities, truth)
    else:
        if state.has_background:
            rest = (1 - torch.from_numpy(scores).double().sum(1, keepdim=True)).clamp(1e-12, 1)  # the background's
            probabilities = torch.cat([probabilities, rest], dim=1)
            truth = torch.cat([truth, 1 - truth.sum(1, keepdim=True)], dim=1)
        loss = -(truth * probabilities.log()).sum(1).mean()
    metrics = validation_metrics(state, scores, targets)
    mean_ap = metrics.mean_average_precision
    row = {"val_loss": loss.item(), "val_map": None if math.isnan(mean_ap) else mean_ap}  # nan: no class can be ranked
    return row if state.manifest.multi_label else {**row, "val_accuracy": metrics.accuracy}
