"""The augmentation that fits a task: short runs with each policy, judged on the validation clips."""

import shutil
from pathlib import Path

import torch

from aumcli.config import POLICIES
from aumcli.errors import AumError
from aumcli.recipe import Recipe
from aumcli.train.distributed import ProcessGroup
from aumcli.train.loggers import Loggers
from aumcli.train.setup import build
from aumcli.train.signals import StopSignal
from aumcli.train.trainer import train_epoch
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted

SHARE, LEAST_EPOCHS = 10, 3  # a short run has one of so many epochs, but at least these
FOLDER = "policies"  # within the run's folder, while they are tried

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
    scores: dict[str, float | None] = {}
    folder = out / FOLDER
    for policy in POLICIES:
        if group.is_rank_zero:
            shutil.rmtree(folder / policy, ignore_errors=True)  # of a choice that was stopped
            (folder / policy).mkdir(parents=True)
        tried = recipe.with_values(augment=recipe.augment.with_policy(policy).model_dump())
        state, _, _ = build(tried, folder / policy, data, device, group, progress)
        epochs = short_epochs(state.recipe.train.epochs)
        warmup_epochs = min(1.0, state.recipe.train.warmup_epochs)
        state.recipe = state.recipe.with_values(train={"epochs": epochs, "warmup_epochs": warmup_epochs})
        state.short = True
        with Loggers(state) as loggers:
            for _ in range(epochs):
                try:
                    train_epoch(state, stop, loggers)
                except AumError as error:
                    if not stop.agreed:
                        raise
                    raise AumError(
                        "stopped while the augmentation was chosen",
                        fix="start the same training again; --set augment.policy=gentle goes without the choice",
                        exit_code=error.exit_code,
                    ) from error
        losses[policy], scores[policy] = state.history[-1]["val_loss"], state.history[-1][state.metric]
        metric = state.metric[4:]
    if group.is_rank_zero:
        shutil.rmtree(folder, ignore_errors=True)
    best = min(losses, key=lambda policy: losses[policy])
    if group.is_rank_zero:
        figures = ", ".join(
            f"{policy} {loss:.3f} ({metric} {100 * (scores[policy] or 0):.1f} %)" for policy, loss in losses.items()
        )
        logger.info(
            f"augmentation {best}: validation loss after {counted(epochs, 'epoch')} each: {figures}; "
            "augment.policy sets it without this choice"
        )
    return recipe.with_values(augment=recipe.augment.with_policy(best).model_dump())
