"""A model as one file that runs without aumcli: ONNX for onnxruntime, or torch.export's .pt2.

Input `features` (batch, frames, mels), normalised log-mel; output `logits` (batch, classes). The batch is free. The
length is not: the positions are learned for one, and the model itself takes no other. The selective scan is an ONNX
`Scan` over the tokens, one for each block and direction, so the graph's size doesn't depend on the length.
docs/export.md says what the file holds beside the network, how to use it and what it costs.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aumcli.core import build_network
from aumcli.errors import AumError
from aumcli.utils.files import atomic_path, check_writable
from aumcli.utils.text import counted

if TYPE_CHECKING:
    from aumcli.classifier import Classifier

ACTIVATIONS = {
    "softmax": "softmax",
    "softmax_background": "softmax, with a 0 behind the logits for the background class",
    "sigmoid": "sigmoid",
}
SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-4  # largest difference of logits; rounding in another order gives some 1e-6
BATCHES = (1, 3)
OPSET = 20
MOST_BYTES = 2**31 - 2**24  # a protobuf can't be larger than 2 GiB; the graph takes some of it


def export_model(classifier: "Classifier", out: Path | str) -> list[tuple[str, str]]:
    """Write a model as .onnx or .pt2, and compare the file's logits with the model's own.

    Args:
        classifier: the model; its network stays as it is.
        out: the file; its suffix says which kind.

    Returns:
        What was written and how far it differs, as (what, value) rows.

    Raises:
        AumError: another suffix, `out` exists or can't be written, packages are missing, or the file's logits differ by
            more than TOLERANCE; then no file is left.
    """
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise AumError(f"a model can't be exported as {out.name}", fix=f"end its name in {' or '.join(SUFFIXES)}")
    if out.exists():
        raise AumError(f"{out} exists already", fix="name another file, or remove this one first")
    check_writable(out)
    write, run = (_write_onnx, _run_onnx) if out.suffix.lower() == ".onnx" else (_write_pt2, _run_pt2)
    config = classifier.config
    if write is _write_onnx:
        _check_onnx(classifier.network)
    features = torch.randn(
        max(BATCHES), config.model.frames, config.model.n_mels, generator=torch.Generator().manual_seed(0)
    )
    fields = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in config.model_dump(mode="json", exclude_none=True).items()
    }
    with atomic_path(out) as temporary:
        with _quiet():
            write(_trace(classifier, features[:2]), temporary, fields)
        differences = [_difference(classifier.logits(features[:b]), run(temporary, features[:b])) for b in BATCHES]
        if not max(differences) <= TOLERANCE:
            raise AumError(
                f"the exported model's logits differ from the model's by up to {max(differences):.1e}, more than "
                f"{TOLERANCE:.0e}; no file was left",
                fix="please report this with the output of aum info",
                exit_code=1,
            )
    return [
        ("model", config.model.describe()),
        ("written to", f"{out}, {out.stat().st_size / 2**20:.1f} MiB"),
        ("input", f"features (batch, {config.model.frames} frames, {config.model.n_mels} mels), float32, any batch"),
        (
            "output",
            f"logits (batch, {counted(len(config.labels), 'class')}); scores by {ACTIVATIONS[config.activation]}",
        ),
        *(
            (
                f"largest difference, batch {b}",
                f"{difference:.1e} from backend {classifier.backend}, random features, seed 0",
            )
            for b, difference in zip(BATCHES, differences)
        ),
    ]


def _trace(classifier: "Classifier", features: Tensor) -> torch.export.ExportedProgram:
    """The network as a program with a free batch; its kernels are plain tensor operations,
    whatever the classifier's are.
    """
    config = classifier.config.model
    with torch.device("meta"):
        network = build_network(config, "torch" if config.architecture == "aum" else "auto")
    tensors = {name: x.detach().cpu() for name, x in classifier.network.state_dict().items()}
    network.load_state_dict(tensors, assign=True)
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        program = torch.export.export(
            network.requires_grad_(False).eval(), (features,), dynamic_shapes=({0: batch},), strict=False
        )
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # this machine's paths, in every node
    return program


def _write_onnx(program: torch.export.ExportedProgram, path: Path, fields: dict[str, str]) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    made = torch.onnx.export(
        program, input_names=["features"], output_names=["logits"], opset_version=OPSET, dynamo=True, verbose=False
    )
    assert made is not None  # as dynamo's exporter returns a program
    ClearMetadataAndDocStringPass()(made.model)
    made.model.producer_name, made.model.producer_version = "aumcli", ""
    made.model.metadata_props.update(fields)
    made.save(path, external_data=False)


def _run_onnx(path: Path, features: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"features": features.numpy()})[0])


def _write_pt2(program: torch.export.ExportedProgram, path: Path, fields: dict[str, str]) -> None:
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files=fields)


def _run_pt2(path: Path, features: Tensor) -> Tensor:
    with open(path, "rb") as file, torch.inference_mode():
        logits: Tensor = torch.export.load(file).module()(features)
    return logits


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return (ours.cpu() - theirs).abs().max().item() if ours.shape == theirs.shape else float("inf")


def _check_onnx(network: nn.Module) -> None:
    """Refuse what can't become an ONNX file, before the work."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise AumError(f"an ONNX file needs {', '.join(missing)}, not installed here", fix="pip install 'aumcli[onnx]'")
    size = sum(x.numel() * x.element_size() for x in network.state_dict().values())
    if size > MOST_BYTES:
        raise AumError(
            f"the weights take {size / 2**30:.1f} GiB; an ONNX file can't have more than 2", fix="export it as .pt2"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
