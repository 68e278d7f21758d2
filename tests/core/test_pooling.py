"""Without a class token: the mean of all tokens is normalised and classified."""

import pytest
import torch

from aumcli.checkpoints import initialise, save_model
from aumcli.config import AudioMambaConfig, FrontendConfig, ModelConfig, SpectrogramTransformerConfig
from aumcli.core import at_length, build_network
from aumcli.errors import AumError

SIZES = {"width": 16, "depth": 2, "n_mels": 32, "frames": 32, "n_classes": 3, "pooling": "mean", "tokenizer": "conv"}
CONFIGS = [AudioMambaConfig(**SIZES), SpectrogramTransformerConfig(**SIZES, heads=2)]


@pytest.fixture(params=CONFIGS, ids=["aum", "ast"])
def network(request):
    torch.manual_seed(0)
    return build_network(request.param).eval()


def model_config(network) -> ModelConfig:
    frontend = FrontendConfig(n_mels=32, frames=network.config.frames)
    return ModelConfig(model=network.config, frontend=frontend, labels=("a", "b", "c"), activation="softmax")


def test_there_is_no_class_token(network):
    names = [name for name, _ in network.named_parameters()]
    assert not any("token" in name for name in names)
    [positions] = [x for name, x in network.named_parameters() if name.endswith("pos_embed")]
    assert positions.shape == (1, network.config.n_patches, 16)


def test_every_token_counts(network):
    features = torch.randn(1, 32, 32, requires_grad=True)
    network(features).square().sum().backward()
    assert (features.grad[0].abs().sum(1) > 0).all()  # of each frame


def test_positions_are_resized_for_another_length(network):
    longer = at_length(network, 64)
    assert longer.config.grid == (1, 16) and longer(torch.randn(2, 64, 32)).shape == (2, 3)


def test_weights_are_stored_and_start_another_training(network, tmp_path):
    config = model_config(network)
    save_model(tmp_path / "model", network.state_dict(), config)
    torch.manual_seed(1)
    other = build_network(network.config)
    initialise(other, config, tmp_path / "model")
    for (name, x), y in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize(
    "values, words",
    [
        ({"pooling": "cls"}, "another pooling"),
        ({"tokenizer": "patches"}, "another tokenizer"),
        ({"n_mels": 64}, "another n_mels"),
        ({"stem": {"frame_strides": (2, 1, 1, 1)}}, "another stem"),
    ],
)
def test_weights_of_another_kind_are_refused(network, tmp_path, values, words):
    save_model(tmp_path / "model", network.state_dict(), model_config(network))
    kind = type(network.config)
    other = build_network(kind.model_validate(network.config.model_dump() | values))
    config = model_config(network).model_copy(update={"model": other.config})
    with pytest.raises(AumError, match=words):
        initialise(other, config, tmp_path / "model")


def test_a_stem_s_tensors_alone_are_refused(network, tmp_path):
    save_model(tmp_path / "model", network.state_dict(), model_config(network))
    (tmp_path / "alone").mkdir()
    weights = (tmp_path / "model" / "model.safetensors").rename(tmp_path / "alone" / "model.safetensors")
    with pytest.raises(AumError, match="whose strides no tensor tells"):
        initialise(network, model_config(network), weights)
