"""aum predict: labels and events for sounds of any number and length.

A bad file is named and never stops the others.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from aumcli.classifier import Classifier
from aumcli.config import PredictConfig
from aumcli.data.decoding.channels import check_channel
from aumcli.data.recorded import check_pattern
from aumcli.errors import AumError
from aumcli.predict.events import Event as Event
from aumcli.predict.inputs import Source
from aumcli.predict.inputs import find_clips as find_clips
from aumcli.predict.prediction import Prediction
from aumcli.predict.scoring import predict_groups

OPTIONS = {
    "window_s": "--window",
    "hop_s": "--hop",
    "batch_size": "--batch",
    "max_gap_s": "--max-gap",
    "min_duration_s": "--min-duration",
}  # those that are not called like their setting


def predict_config(**settings: object) -> PredictConfig:
    """Check settings (None: the default); raises AumError for what doesn't go together."""
    try:
        config = PredictConfig(**{name: value for name, value in settings.items() if value is not None})
        check_channel(config.channel)
        check_pattern(config.recorded)
        return config
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            problem, _, fix = first["msg"].removeprefix("Value error, ").partition("; ")  # as PredictConfig says it
            raise AumError(problem, fix) from error
        name = str(first["loc"][0])
        if name not in PredictConfig.model_fields:
            raise AumError(
                f"there is no setting {name}", fix=f"choose among {', '.join(PredictConfig.model_fields)}"
            ) from error
        wanted = first["msg"].removeprefix("Input should be ")
        raise AumError(
            f"{name} has to be {wanted}, not {first['input']}",
            fix=f"give {OPTIONS.get(name, f'--{name}')} such a value, or leave it out",
        ) from error


def predict_files(
    classifier: Classifier, paths: Iterable[Path | str | Source], **settings: object
) -> Iterator[Prediction]:
    """Label files in order, several in one batch, in memory that depends on neither their number nor their length.

    Args:
        classifier: see `aumcli.load_model`.
        paths: sound files of any rate and length.
        settings: fields of `aumcli.config.PredictConfig`, such as top=3, hop_s=0.5, threshold=0.8.

    Yields:
        A prediction for each path, in order.

    Raises:
        AumError: the settings don't go together.
    """
    config = predict_config(**settings)
    for group in predict_groups(classifier, map(Source.of, paths), config):
        yield from group
