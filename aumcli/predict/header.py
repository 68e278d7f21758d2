"""How results are made: the head of every output, and what an earlier call must agree with to be continued."""

import hashlib
from collections.abc import Sequence

import numpy as np

from aumcli.classifier import Classifier
from aumcli.config import FrontendConfig, PredictConfig
from aumcli.data.decoding.channels import MEAN
from aumcli.predict.outputs import Outputs
from aumcli.predict.prediction import DECIMALS, SCHEMA, Record
from aumcli.predict.scoring import thresholds, window_samples

KEYS = (
    "schema",
    "model",
    "backend",
    "device",
    "dtype",
    "background",
    "sample_rate_hz",
    "band_hz",
    "window_s",
    "hop_s",
    "smooth",
    "top",
    "max_gap_s",
    "min_duration_s",
    "channel",
    "recorded",
    "reject",
    "threshold",
)  # in the order of every output


def header_of(classifier: Classifier, config: PredictConfig) -> Record:
    """The header of results that a model gives."""
    frontend, (size, hop) = classifier.config.frontend, window_samples(classifier, config)
    rate_hz = frontend.sample_rate_hz
    is_usual = (frontend.low_hz, frontend.high_hz) == (FrontendConfig().low_hz, None)
    made: Record = {
        "schema": SCHEMA,
        "model": classifier.source,
        "backend": classifier.backend,
        "device": str(classifier.device),
        "dtype": "float32",
        **({"background": True} if classifier.has_background else {}),
        "sample_rate_hz": rate_hz,
        **({} if is_usual else {"band_hz": [*frontend.band_hz]}),
        "window_s": size and size / rate_hz,
        "hop_s": hop / rate_hz if size else None,
        **({} if config.channel == MEAN else {"channel": config.channel}),
    }
    return with_postprocessing(made, config, classifier.labels, thresholds(classifier, config))


def with_postprocessing(
    made: Record, config: PredictConfig, labels: Sequence[str], class_thresholds: np.ndarray
) -> Record:
    """A header of scores, and how labels and events come from them.

    Args:
        made: how the scores were made.
        config: how; of it top, reject, smooth, max_gap_s and min_duration_s.
        labels: names of the classes.
        class_thresholds: least score of an event, (classes,).
    """
    each = dict(zip(labels, class_thresholds.astype(float).round(DECIMALS).tolist()))
    done = {
        name: getattr(config, name) or None for name in ("max_gap_s", "min_duration_s", "recorded", "reject")
    }  # 0: not done
    values = {
        **made,
        "smooth": config.smooth,
        "top": config.top,
        **done,
        "threshold": each if len(set(each.values())) > 1 else next(iter(each.values())),
    }
    return {name: values[name] for name in KEYS if name in values and not (name in done and values[name] is None)}


def journal_header(header: Record, classifier: Classifier, config: PredictConfig, outputs: Outputs) -> Record:
    """What a journal's results depend on, beside the sounds: results of another kind are not continued."""
    return {
        **header,
        "batch_size": config.batch_size,
        "weights": _digest(classifier),
        "embed": outputs.embed is not None,
        "html": outputs.html is not None,
        "folder": outputs.folder is not None and outputs.kind.value,
        "max_gap_s": config.max_gap_s,
        "min_duration_s": config.min_duration_s,
        "scores": outputs.scores is not None,
        "embed-windows": outputs.embed_windows,
    }


def _digest(classifier: Classifier) -> str:
    """SHA-256 of the weights: results of another model are not continued, whatever its name."""
    digest = hashlib.sha256()
    for name, weights in classifier.network.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().view(-1).numpy())
    return digest.hexdigest()
