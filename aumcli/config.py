"""Typed configuration: one frozen class per concept, unknown keys refused, every default in one place.

Imports no torch, so that the command line can check a recipe before anything heavy is loaded.
"""

import math
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag, model_validator


class Direction(StrEnum):
    """How a block reads the sequence (paper, figure 1 a, b, c): which convolutions and scans it has."""

    FO_FO = "Fo-Fo"
    FO_BI = "Fo-Bi"
    BI_BI = "Bi-Bi"


class ClsPosition(StrEnum):
    """Where the classification token stands among the patch tokens (paper, section 2.2)."""

    HEAD = "head"
    MID = "mid"
    END = "end"


class Frozen(BaseModel):
    """Base of all configuration: immutable, strict about unknown keys and about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none(cls, values: Any) -> Any:
        """Let `none`, and nothing at all, stand for None where a value is optional: TOML has no word for it."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {
            key: None if key in optional and isinstance(value, str) and value.strip().lower() in ("", "none") else value
            for key, value in values.items()
        }


Positive = Annotated[int, Field(gt=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Extent = Annotated[float, Field(ge=0, lt=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


MOST_FILTER_WEIGHTS = (
    2**24
)  # points of the FFT times mels, 65,536 for AudioSet; a configuration from elsewhere must not fill the memory


class FrontendConfig(Frozen):
    """Waveform -> log-mel spectrogram, as Kaldi or the EPIC-SOUNDS pipeline computes it."""

    kind: Literal["kaldi", "epic_sounds"] = Field(
        "kaldi",
        description="kaldi: log energies of whole windows, zeros behind a short clip; epic_sounds: log magnitudes of "
        "centred frames, the last one repeated",
    )
    sample_rate_hz: Positive = Field(16000, description="every clip is resampled to this rate")
    n_mels: Positive = Field(128, description="mel filters from low_hz to high_hz")
    frames: Positive = Field(1024, description="frames per clip; shorter clips are padded, longer ones cut")
    window_ms: PositiveFloat = Field(25.0, description="Hann window")
    hop_ms: PositiveFloat = Field(10.0, description="from one frame to the next")
    fft_size: Positive | None = Field(
        None, description="points of the FFT; none: the next power of two from the window on"
    )
    low_hz: NotNegative = Field(20.0, description="lower edge of the first filter")
    high_hz: PositiveFloat | None = Field(None, description="upper edge of the last filter; none: half the sample rate")
    remove_level: Flag = Field(
        False,
        description="subtract each clip's own mean log energy, before padding: how loud a clip is then says nothing",
    )
    mean: float = Field(-4.2677393, strict=True, description="subtracted from the log energies (default: AudioSet)")
    std: PositiveFloat = Field(4.5689974, description="then divided by twice this; mean 0, std 0.5: not normalised")

    @property
    def window_samples(self) -> int:
        return int(self.sample_rate_hz * self.window_ms * 0.001)

    @property
    def hop_samples(self) -> int:
        return int(self.sample_rate_hz * self.hop_ms * 0.001)

    @property
    def fft_points(self) -> int:
        """Points of the FFT."""
        return self.fft_size or 1 << (self.window_samples - 1).bit_length()

    @property
    def band_hz(self) -> tuple[float, float]:
        """The outer edges of the first and the last filter."""
        return self.low_hz, self.high_hz or self.sample_rate_hz / 2

    @property
    def clip_samples(self) -> int:
        """The samples that all frames see.

        They are whole windows; of epic_sounds' centred ones, the first half is before the clip.
        """
        hops = (self.frames - 1) * self.hop_samples
        return hops + (self.window_samples if self.kind == "kaldi" else self.window_samples // 2)

    @property
    def clip_s(self) -> float:
        return self.clip_samples / self.sample_rate_hz

    @model_validator(mode="after")
    def _check(self) -> "FrontendConfig":
        if self.hop_samples < 1 or self.window_samples < 2:
            raise ValueError(
                f"window_ms {self.window_ms} and hop_ms {self.hop_ms} are less than a sample "
                f"at {self.sample_rate_hz} Hz"
            )
        if self.fft_points * self.n_mels > MOST_FILTER_WEIGHTS:
            raise ValueError(f"filters for {self.n_mels} mels and {self.fft_points} points would take too much memory")
        if self.fft_points < self.window_samples or self.fft_points % 2:
            raise ValueError(
                f"fft_size {self.fft_points} is odd or less than the window's {self.window_samples} samples"
            )
        if self.low_hz >= self.sample_rate_hz / 2:
            raise ValueError(f"low_hz {self.low_hz} is not below half the sample rate {self.sample_rate_hz}")
        if self.high_hz is not None and not self.low_hz < self.high_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"high_hz {self.high_hz} is not above low_hz {self.low_hz} and up to half the sample rate "
                f"{self.sample_rate_hz}"
            )
        return self


class ConvStemConfig(Frozen):
    """Stages of 3 x 3 convolutions between a spectrogram and its tokens, each (channels, mels, frames) to the next.

    A stage's first convolution has the stage's strides; padding is one on every side, so sizes are divided by the
    strides and rounded up.
    """

    channels: tuple[Positive, ...] = Field((16, 32, 64, 96), min_length=1, description="output channels of each stage")
    convs: tuple[Positive, ...] = Field((1, 2, 2, 2), description="convolutions of each stage")
    mel_strides: tuple[Positive, ...] = Field((2, 2, 2, 2), description="of each stage, along the mels")
    frame_strides: tuple[Positive, ...] = Field((2, 2, 1, 1), description="of each stage, along the frames")

    @model_validator(mode="after")
    def _check_stages(self) -> "ConvStemConfig":
        if len({len(self.channels), len(self.convs), len(self.mel_strides), len(self.frame_strides)}) > 1:
            raise ValueError("channels, convs, mel_strides and frame_strides have a number for each stage")
        return self


class NetworkConfig(Frozen):
    """What every architecture has: tokens of a spectrogram through a stack of blocks."""

    SIZES: ClassVar[dict[str, dict[str, int]]] = {}

    size: Literal["pico", "nano", "tiny", "small", "base"] | None = Field(
        None, description="sets width, depth and the like"
    )
    width: Positive = Field(768, description="embedding width d")
    depth: Positive = Field(24, description="number of blocks")
    n_classes: Positive = Field(527, description="number of classes; the data decides")
    n_mels: Positive = Field(128, description="height of the spectrogram; follows frontend.n_mels")
    frames: Positive = Field(1024, description="length of the spectrogram; follows frontend.frames")
    tokenizer: Literal["patches", "conv"] = Field(
        "patches",
        description="patches: a linear projection of each, as published; conv: a stem of convolutions, then one token "
        "per step of time",
    )
    stem: ConvStemConfig = Field(ConvStemConfig(), description="of the tokenizer conv")
    patch_mels: Positive = Field(16, description="height of a patch in mels")
    patch_frames: Positive = Field(16, description="length of a patch in frames")
    overlap: Count = Field(0, description="mels, and frames, that neighbouring patches share")
    pooling: Literal["cls", "mean"] = Field(
        "cls", description="what is classified: the class token, as published, or the mean of all tokens, without one"
    )
    drop_path: Extent = Field(0.0, description="stochastic depth at the last block")
    architecture: Literal["aum", "ast"] = Field(description="Audio Mamba or Audio Spectrogram Transformer")

    @model_validator(mode="before")
    @classmethod
    def _expand_size(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("size") in cls.SIZES:
            return {**cls.SIZES[values["size"]], **values}
        return values

    @model_validator(mode="after")
    def _check_patches(self) -> "NetworkConfig":
        if self.tokenizer == "conv":
            return self
        for axis, whole, patch in (
            ("n_mels", self.n_mels, self.patch_mels),
            ("frames", self.frames, self.patch_frames),
        ):
            if self.overlap >= patch or patch > whole:
                raise ValueError(f"patches of {patch} with overlap {self.overlap} don't fit {axis} {whole}")
            if not self.overlap and whole % patch:
                raise ValueError(
                    f"{axis} {whole} is not a multiple of the patch's {patch}: nothing may be cut silently"
                )
        return self

    @property
    def token_frames(self) -> int:
        """Frames from one token to the next."""
        return math.prod(self.stem.frame_strides) if self.tokenizer == "conv" else self.patch_frames - self.overlap

    def whole_frames(self, frames: int) -> int:
        """The least number of frames, at least `frames`, that tokens fill completely."""
        first = self.token_frames if self.tokenizer == "conv" else self.patch_frames
        return first + self.token_frames * math.ceil(max(0, frames - first) / self.token_frames)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along (mels, frames)."""
        if self.tokenizer == "conv":
            return 1, math.ceil(self.frames / self.token_frames)
        return (
            1 + (self.n_mels - self.patch_mels) // (self.patch_mels - self.overlap),
            1 + (self.frames - self.patch_frames) // self.token_frames,
        )

    @property
    def n_patches(self) -> int:
        """Tokens without the classification token."""
        return self.grid[0] * self.grid[1]

    def describe(self) -> str:
        """One line about the network."""
        stem = ", conv stem" if self.tokenizer == "conv" else ""
        return f"{self.size or ''} {self._architecture()}, {self.width} x {self.depth}{stem}".strip()

    def _architecture(self) -> str:
        raise NotImplementedError


class AudioMambaConfig(NetworkConfig):
    """An Audio Mamba (AuM)."""

    SIZES: ClassVar = {
        "pico": {"width": 128, "depth": 2, "state_size": 8},  # ours, behind a convolutional stem
        "nano": {"width": 128, "depth": 6, "state_size": 8},  # ours, for CPUs: the scan costs as much as the matmuls
        "tiny": {"width": 192, "depth": 24},
        "small": {"width": 384, "depth": 24},
        "base": {"width": 768, "depth": 24},
    }

    architecture: Literal["aum"] = Field("aum", description="Audio Mamba")
    overlap: Literal[0] = Field(0, description="patches of an Audio Mamba don't overlap")
    direction: Direction = Field(Direction.FO_BI, description="of the blocks: Fo-Fo, Fo-Bi or Bi-Bi")
    cls_position: ClsPosition = Field(ClsPosition.MID, description="of the class token: head, mid or end")
    state_size: Positive = Field(16, le=4096, description="n: size of the state per channel")
    conv_kernel: Positive = Field(4, description="taps of the causal convolution")
    expand: Positive = Field(2, description="inner width e = expand * width")
    norm_eps: PositiveFloat = Field(1e-5, description="added to the mean square in RMS norms")
    published_gate_gradient: Flag = Field(
        False, description="Fo-Bi: leave the reversed direction out of the gate's gradient, as the published code does"
    )

    def _architecture(self) -> str:
        return f"AuM {self.direction}, " + (f"CLS {self.cls_position}" if self.pooling == "cls" else "mean of tokens")

    @property
    def inner_width(self) -> int:
        return self.expand * self.width

    @property
    def dt_rank(self) -> int:
        return math.ceil(self.width / 16)


class SpectrogramTransformerConfig(NetworkConfig):
    """An Audio Spectrogram Transformer (AST); each size has about as many parameters as the Audio Mamba of its name."""

    SIZES: ClassVar = {
        "pico": {"width": 128, "depth": 2, "heads": 4},  # ours, as is the next
        "nano": {"width": 128, "depth": 3, "heads": 4},
        "tiny": {"width": 192, "depth": 12, "heads": 3},
        "small": {"width": 384, "depth": 12, "heads": 6},
        "base": {"width": 768, "depth": 12, "heads": 12},
    }

    architecture: Literal["ast"] = Field("ast", description="Audio Spectrogram Transformer")
    depth: Positive = Field(12, description="number of blocks")
    heads: Positive = Field(12, description="attention heads per block")
    mlp_width: Positive | None = Field(None, description="inner width of the MLP; none: four times the width")
    distilled: Flag = Field(False, description="a second token; the mean of both is classified, as in DeiT")
    norm_eps: PositiveFloat = Field(1e-6, description="of the blocks and the last norm")
    head_norm_eps: PositiveFloat = Field(1e-5, description="of the norm before the head")

    @model_validator(mode="after")
    def _check_heads(self) -> "SpectrogramTransformerConfig":
        if self.distilled and self.pooling != "cls":
            raise ValueError("distilled adds a second class token, so pooling is cls")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    def _architecture(self) -> str:
        return f"AST, {self.heads} heads"


ARCHITECTURES: dict[str, type[NetworkConfig]] = {"aum": AudioMambaConfig, "ast": SpectrogramTransformerConfig}


def _architecture(values: Any) -> Any:
    return values.get("architecture", "aum") if isinstance(values, dict) else getattr(values, "architecture", "aum")


Network = Annotated[
    Annotated[AudioMambaConfig, Tag("aum")] | Annotated[SpectrogramTransformerConfig, Tag("ast")],
    Discriminator(_architecture),
]


NOTHING = "(nothing)"  # how a clip of no class, or an answer of none, is called

# named augmentations: what a policy sets where the recipe doesn't
POLICIES: dict[str, dict[str, float]] = {
    # for labels of any kind: pitch, tempo and colour of a sound stay as they are
    "gentle": {"shift_s": 0.1, "freq_mask": 12, "time_mask": 16},
    # for what a sound is like throughout, a voice, an instrument, an engine: a part of it is enough
    "timbre": {"crop": 0.5, "shift_s": 0.1, "freq_mask": 12, "time_mask": 16},
    # for words, whoever says them into whatever microphone
    "speech": {
        "shift_s": 0.1,
        "freq_mask": 12,
        "time_mask": 12,
        "speed": 0.12,
        "tempo": 0.15,
        "freq_warp": 0.15,
        "gain_db": 10.0,
        "eq_db": 8.0,
        "noise": 0.3,
    },
    # for sounds at any distance and in any surroundings; their pitch stays as it is
    "field": {
        "shift_s": 0.1,
        "freq_mask": 12,
        "time_mask": 16,
        "gain_db": 10.0,
        "eq_db": 6.0,
        "noise": 0.5,
        "reverb": 0.1,
    },
}


class AugmentConfig(Frozen):
    """What training does to a clip before the model sees it; zero switches a thing off."""

    policy: Literal["none", "gentle", "timbre", "speech", "field", "auto"] = Field(
        "none",
        description="sets what is not given otherwise: gentle, for labels of any kind; timbre, for voices, "
        "instruments, engines; speech, for words, whoever says them; field, for sounds at any distance and in any "
        "noise; auto: the one of these whose short run is best on the validation clips",
    )
    crop: Extent = Field(
        0.0, description="up to this fraction of a clip is left out, so that a random part of it is kept"
    )
    shift_s: NotNegative = Field(0.0, description="random time shift, up to this much each way")
    mixup: Fraction = Field(0.0, description="fraction of clips that are mixed with another (ratio from Beta(10, 10))")
    mixup_partners: Literal["batch", "corpus"] = Field(
        "batch",
        description="what they are mixed with: another clip of the batch, or any of the training clips, "
        "which is then decoded too",
    )
    freq_mask: Count = Field(0, description="SpecAugment: widest mel band set to zero")
    time_mask: Count = Field(0, description="SpecAugment: longest run of frames set to zero")
    masking: Literal["torchaudio", "epic_sounds"] = Field(
        "torchaudio",
        description="torchaudio: one mask along each axis, set to zero; epic_sounds: two, set to the "
        "spectrogram's mean, shorter on average",
    )
    time_warp: Count = Field(
        0,
        description="EPIC-SOUNDS' time warp, which asks to move a point by up to this many frames (published: 5) "
        "and in effect stretches, shifts and shears the spectrogram at random; 0: none",
    )
    feature_noise: NotNegative = Field(
        0.0, description="uniform noise on the normalised features, from 0 up to this much"
    )
    roll: Count = Field(0, description="frames rolled around, by up to this many each way")
    speed: Extent = Field(
        0.0, description="resampled by a factor in 1 / (1 + speed) .. 1 + speed: pitch, formants and tempo together"
    )
    tempo: Extent = Field(0.0, description="stretched in time likewise, pitch kept")
    freq_warp: Extent = Field(
        0.0, description="frequency axis scaled likewise, tempo kept: another vocal tract or a smaller bell"
    )
    gain_db: NotNegative = Field(0.0, description="random gain, up to this much each way")
    eq_db: NotNegative = Field(
        0.0,
        description="random frequency response, a smooth curve of up to this much each way: "
        "another microphone, another room",
    )
    noise: NotNegative = Field(
        0.0,
        description="coloured noise of up to this share of the clip's RMS: 0.3 is a signal-to-noise ratio of "
        "10 dB, 0.1 of 20 dB; the weakest is 30 dB below",
    )
    background: Fraction = Field(
        0.0,
        description="fraction of clips that are replaced by silence or coloured noise of no class, so that the model "
        "learns to answer nothing; 0.2 is a good one where no class is a noise",
    )
    background_noise: Fraction = Field(
        0.0,
        description="fraction of the clips of a class that lie somewhere in a clip of no class of their batch, 0 to 30 "
        "dB louder than it",
    )
    band_limit: Fraction = Field(
        0.0, description="fraction of clips that are band-limited, as by a telephone or a small loudspeaker"
    )
    reverb: Fraction = Field(0.0, description="fraction of clips that get the reverberation of a synthetic room")

    @property
    def active(self) -> list[str]:
        """Names of the augmentations that are on."""
        settings = ("policy", "mixup_partners", "masking")
        return [name for name in type(self).model_fields if name not in settings and getattr(self, name)]

    @model_validator(mode="before")
    @classmethod
    def _expand_policy(cls, values: Any) -> Any:
        return {**POLICIES.get(str(values.get("policy")), {}), **values} if isinstance(values, dict) else values


class TrainConfig(Frozen):
    """How a model is trained."""

    epochs: Positive = Field(20, description="passes over the training clips")
    max_steps: Count = Field(
        0, description="fewer epochs where they would take more optimizer steps than this in all; 0: no limit"
    )
    batch_size: Positive = Field(64, description="clips of an optimizer step, of all processes together")
    gradient_accumulation_steps: Positive = Field(
        1,
        description="microbatches of a batch, computed one after the other or by as many processes; but for rounding "
        "the result doesn't depend on their number",
    )
    optimizer: Literal["adam", "adamw"] = Field("adamw", description="adam: weight decay in the gradient")
    lr: PositiveFloat = Field(1e-3, description="peak learning rate")
    weight_decay: NotNegative = Field(0.05, description="weight decay; adamw spares norms, biases, tokens, A and D")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="decay of the optimizer's two moments")
    drop_last: Flag = Field(
        False, description="an epoch ends without its last batch where that is smaller than the others"
    )
    warmup_epochs: NotNegative = Field(1.0, description="linear rise of the learning rate")
    warmup_steps: Count = Field(0, description="the same in steps; where not 0, it replaces warmup_epochs")
    warmup_start: Fraction = Field(0.0, description="fraction of the learning rate at which warm-up starts")
    warmup_every: Positive = Field(1, description="steps between two rises of the learning rate in warm-up")
    schedule: Literal["constant", "cosine", "steps"] = Field("cosine", description="of the rate after warm-up")
    decay_start: Positive = Field(2, description="steps: epochs before the first decay")
    decay_every: Positive = Field(1, description="steps: epochs from one decay to the next")
    decay_factor: PositiveFloat = Field(0.5, description="steps: the learning rate is multiplied by this")
    loss: Literal["cross_entropy", "bce", "auto"] = Field(
        "auto", description="auto: bce where a clip can have several labels, else cross_entropy"
    )
    label_smoothing: Extent = Field(0.0, description="of cross entropy")
    clip_grad: NotNegative = Field(1.0, description="largest norm of the gradient; 0 for no limit")
    ema: Extent = Field(
        0.0, description="decay per step of the averaged weights that are evaluated and saved; 0 for none"
    )
    init: str = Field("", description="a checkpoint, a run or a model to start from instead of fresh weights")
    pretrained: str = Field("", description="the checkpoint that `init` has to name; training is refused without it")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of the matmuls in a step: bfloat16 means autocast, float16 autocast with a scaled loss, for GPUs "
        "without bfloat16; weights, the scan's state and validation stay float32",
    )
    freeze: Literal["none", "backbone"] = Field(
        "none",
        description="backbone: only the head is trained, on embeddings of the clips, each of which is encoded once and "
        "kept on disk",
    )
    augmented_views: Count = Field(
        0, description="frozen backbone: encode each clip this often augmented as well; epochs take turns"
    )
    layer_decay: Fraction = Field(1.0, description="the learning rate of a block, as a share of the next one's")
    activation_checkpointing: Literal["cheap", "block"] = Field(
        "cheap",
        description="what the backward pass recomputes instead of keeping it: what is cheap, "
        "or whole blocks for least memory",
    )
    workers: Count = Field(0, description="decoding threads; 0: half the cores, 4 at most")
    early_stopping_patience: Count = Field(
        0, description="epochs without a better validation metric after which the run ends; 0: never"
    )
    checkpoint_every_minutes: PositiveFloat = Field(10.0, description="minutes between two checkpoints within an epoch")
    checkpoint_every_steps: Count = Field(0, description="steps between two checkpoints as well; 0: by the clock alone")
    calibrate: Flag = Field(
        False,
        description="at the end, divide the head's weights by a temperature that is fitted on the validation clips, so "
        "that scores mean what they say",
    )
    max_nonfinite_steps: Count = Field(
        0, description="steps in a row that may be skipped because the loss or the gradient is not finite"
    )
    tensorboard: Flag = Field(False, description="also write tensorboard/ (extra: tensorboard)")

    def steps_per_epoch(self, clips: int) -> int:
        """Steps of the optimizer in an epoch of so many clips."""
        whole = clips // self.batch_size
        return max(1, whole) if self.drop_last else math.ceil(clips / self.batch_size)


class PredictConfig(Frozen):
    """How sound files are labelled."""

    top: Positive = Field(5, description="labels per clip")
    window_s: PositiveFloat | None = Field(
        None, description="long clips are scored in windows of this length; none: the model's"
    )
    hop_s: PositiveFloat | None = Field(None, description="from one window's start to the next; none: half a window")
    whole: Flag = Field(False, description="each clip in one pass instead, positions resized to its length")
    threshold: Fraction | None = Field(
        None, description="lowest score of an event; none: the model's own for each class, else 0.5"
    )
    thresholds: dict[str, NotNegative] | None = Field(None, description="the same for some classes, by name")
    recorded: str = Field("", description="how names tell when and where, as {site}_%Y%m%d_%H%M%S; empty: as usual")
    reject: Flag = Field(
        False, description="a clip in which no class reaches its threshold is answered with nothing, by any model"
    )
    smooth: Positive = Field(
        1, description="windows in the moving average of scores that events are made of, an odd number"
    )
    max_gap_s: NotNegative = Field(0.0, description="events of a class at most this far apart are joined")
    min_duration_s: NotNegative = Field(0.0, description="events shorter than this, after joining, are left out")
    batch_size: Positive | None = Field(
        None, description="windows in one go; none: 64, or 128 where each is below 48 tokens"
    )
    workers: Positive | None = Field(None, description="decoding threads; none: half the cores, 4 at most")
    channel: str = Field(
        "mean", description="of several channels: mean, left, right, a number from 1 on, or max, the loudest"
    )

    @model_validator(mode="after")
    def _check_windows(self) -> "PredictConfig":
        if self.whole and (self.window_s or self.hop_s):
            raise ValueError(
                "a clip that is scored in one pass has no windows; leave --whole out, or --window and --hop"
            )
        if self.threshold is not None and self.thresholds is not None:
            raise ValueError("there are a threshold for all classes and thresholds by class; leave one of them out")
        if self.smooth % 2 == 0:
            raise ValueError(
                f"--smooth {self.smooth} is even, so no window is in the middle; --smooth {self.smooth + 1}"
            )
        return self


VIEWS = {
    "all": "all windows, half overlapping, scores averaged",
    "first": "one window, at the beginning",
    "epic_sounds": "one window, at the beginning or, beyond 10 s, from a random start",
}  # of a clip, in evaluation


class DataConfig(Frozen):
    """Which prepared corpus, and which of its splits serve for what."""

    corpus: str | None = Field(None, description="data/<corpus> is used where --data is not given")
    train: str = Field("train", description="the split that is trained on")
    val: str = Field("val", description="the split that chooses the best epoch; never the test split")
    val_fraction: Extent = Field(
        0.0,
        description="for corpora without such a split: fraction of `train` that is kept out of training "
        "and chooses the epoch",
    )
    test: str = Field("test", description="the split that results are reported on; never chosen on")
    train_clips: Positive | None = Field(None, description="clips of the whole corpus' training split, for the plan")
    crop: Literal["random", "first", "epic_sounds"] = Field(
        "random",
        description="part of a clip longer than the model's input that is trained on: random; first, its beginning; "
        "epic_sounds: its beginning too, from a random start in clips of more than 10 s",
    )
    views: Literal["all", "first", "epic_sounds"] = Field(
        "all",
        description="which windows of a long clip are scored in validation and by aum eval: "
        "all, half overlapping, their scores averaged; first, one at its beginning; "
        "epic_sounds: one, from a random start in clips of more than 10 s",
    )
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle",
        description="balanced: as many clips per epoch, drawn with replacement, those of rare labels more often",
    )
    test_group: str = Field(
        "",
        coerce_numbers_to_str=True,
        description="train and validate without the clips whose group has this name; test on them",
    )
    infer: tuple[
        Literal["sample_rate", "low_hz", "high_hz", "window", "clip_length", "normalisation", "model"], ...
    ] = Field(
        (),
        description="frontend values inferred from the training split, unless a later file or --set gives them; "
        "low_hz, high_hz: of annotated events; window: window, hop and FFT that resolve the band; "
        "model: architecture, sizes and frontend are those of the weights in train.init",
    )
    max_unreadable_clips: Count = Field(
        0, description="training clips that may be skipped, each named, because they can no longer be read"
    )
    shuffle_buffer_clips: Positive = Field(
        1024, description="streaming shards: undecoded clips held in memory to shuffle them"
    )
    cache_mb: Count = Field(1024, description="decoded clips kept in memory, up to this much")

    @property
    def reported(self) -> str:
        """The split that results are reported on; where a group is held out, that group is called test."""
        return "test" if self.test_group else self.test

    @property
    def leak(self) -> str:
        """What else the reported clips do, which flatters: "train", "choose the epoch" or, as it should be, ""."""
        if self.test_group:
            return ""
        if self.test == self.train:
            return "train"
        return "choose the epoch" if self.test == self.val and not self.val_fraction else ""


class ModelConfig(Frozen):
    """config.json of a model directory: all that evaluation and prediction need besides the weights."""

    format: Literal[1] = Field(1, description="version of this file's layout")
    model: Network = Field(description="architecture and sizes")
    frontend: FrontendConfig = Field(description="from waveform to features, with the normalisation")
    labels: Annotated[tuple[str, ...], FailFast()] = Field(description="names of the classes, by index")
    activation: Literal["softmax", "softmax_background", "sigmoid"] = Field(
        description="how logits become scores: as the model was trained; softmax_background: softmax with a background "
        "class, of logit 0 and without a score, so that the scores of a sound of no class are low"
    )
    views: Literal["all", "first", "epic_sounds"] = Field(
        "all", description="which windows of a long clip are scored in evaluation"
    )
    thresholds: tuple[Fraction, ...] | None = Field(
        None, description="score from which on a class counts as present: best F1 on the validation split"
    )
    provenance: dict[str, Any] = Field(default_factory=dict, description="recipe, data, seed, versions, scores")

    @model_validator(mode="after")
    def _check_labels(self) -> "ModelConfig":
        if len(self.labels) != self.model.n_classes:
            raise ValueError(f"number of labels: {len(self.labels)}, of the model's classes: {self.model.n_classes}")
        if self.thresholds is not None and len(self.thresholds) != len(self.labels):
            raise ValueError(f"number of thresholds: {len(self.thresholds)}, of labels: {len(self.labels)}")
        if (self.model.n_mels, self.model.frames) != (self.frontend.n_mels, self.frontend.frames):
            raise ValueError("model and frontend disagree about the spectrogram's size")
        return self
