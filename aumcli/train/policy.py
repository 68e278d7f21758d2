"""The augmentation that fits a task: short runs with each policy, judged on the validation clips."""

from pathlib import Path

import torch

from aumcli.config import POLICIES
from aumcli.recipe import Recipe
from aumcli.train.distributed import ProcessGroup
from aumcli.train.loggers import Loggers
from aumcli.train.setup import build
from aumcli.train.signals import StopSignal
from aumcli.train.trainer import train_epoch
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, percent

SHARE, LEAST_EPOCHS = 10, 3  # a short run has one of so many epochs, but at least these

logger = get_logger(__name__)


def short_epochs(epochs: int) -> int:
    """Epochs of the short run of each policy, of a training of `epochs`."""
    return min(epochs, max(LEAST_EPOCHS, epochs // SHARE))


def choose_policy(
    recipe: Recipe,
    out: Path,
    data: Path | str | None,
    device: torch.device,
    group: ProcessGroup,
    stop: StopSignal,
    progress: bool,
) -> Recipe:
    """Replace `augment.policy = "auto"` by the policy whose short run ends with the lowest validation loss.

    The loss, since a short run of few clips says little by its accuracy. All start from the same weights.

    Args:
        recipe: what to do.
        out, data: see `aumcli.train.train`.
        device: where to compute.
        group: the processes of this training; all of them choose together.
        stop: asks to stop.
        progress: show bars.

    Returns:
        The recipe with a policy of `POLICIES`.

    Raises:
        AumError: stopped, or what training raises.
    """
    losses: dict[str, float] = {}
    scores: list[str] = []
    fitted, epochs = recipe, 0
    for policy in POLICIES:
        state, _, _ = build(fitted.with_values(augment={"policy": policy}), out, data, device, group, progress)
        fitted = state.recipe.model_copy(update={"augment": recipe.augment})  # the data is measured once
        epochs = short_epochs(fitted.train.epochs)
        state.recipe, state.short = state.recipe.with_epochs(epochs), True
        with Loggers(state) as loggers:
            for _ in range(epochs):
                train_epoch(state, stop, loggers)
        row = state.history[-1]
        losses[policy] = row["val_loss"]
        scores.append(f"{policy} {row['val_loss']:.3f} ({state.metric[4:]} {percent(row[state.metric])})")
    best = min(losses, key=lambda policy: losses[policy])
    if group.is_rank_zero:
        logger.info(
            f"augmentation {best}: validation loss after {counted(epochs, 'epoch')} each: {', '.join(scores)}; "
            "augment.policy sets it without this choice"
        )
    return recipe.with_values(augment={"policy": best})
