"""The network as it is trained and as it predicts: normalisation, backbone, precision, device."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from configs.errors import UserError
from configs.schema import Config
from features.store import Store
from models.build import build_model
from models.input_channels import input_channels

# A band that hardly ever changes, below the lowest FFT bin or above a codec's limit, must not turn what augmentation or
# a test clip moves into it into thousands. In log-mel; a band with sound in it has 2 to 4.
LEAST_STD = 0.5


class Tagger(nn.Module):
    """(batch, 1, n_mels, n_frames) log-mel -> (batch, n_classes) logits.

    mean and std (n_mels,) of the training clips and prior (n_classes,), the answer to a clip without sound, belong to
    the weights, so that prediction needs nothing but them. deltas and frequency_channel: further input channels that
    the backbone sees, made from the normalised log-mel.
    """

    mean: Tensor
    std: Tensor
    prior: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Tensor,
        std: Tensor,
        prior: Tensor,
        channels_last: bool = True,
        deltas: int = 0,
        frequency_channel: bool = False,
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std), ("prior", prior)):
            self.register_buffer(name, values.clone().float())
        self.backbone = backbone
        self.deltas, self.frequency_channel = deltas, frequency_channel
        self.channels_last = channels_last
        if channels_last:
            self.backbone.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean.view(1, 1, -1, 1)) / self.std.view(1, 1, -1, 1)
        x = input_channels(x, self.deltas, self.frequency_channel)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.backbone(x)


def build_tagger(cfg: Config, prior: np.ndarray, mean: np.ndarray, std: np.ndarray, start: bool = True) -> Tagger:
    """An untrained tagger for len(prior) classes; start=False leaves out pretrained weights, for a state to come."""
    backbone = build_model(cfg, len(prior), start)
    mean_t, std_t, prior_t = (torch.from_numpy(values) for values in (mean, std, prior))
    deltas, frequency = cfg.model.deltas, cfg.model.frequency_channel
    return Tagger(backbone, mean_t, std_t, prior_t, cfg.train.channels_last, deltas, frequency)


def refuse_size(tagger: Tagger, batch: int, n_frames: int, training: bool, remedy: str) -> None:
    """Raises UserError where the network cannot take such a batch: its last cells may be too few to pool, or a single
    one to normalise, or it asserts another size. Tried on shapes alone; where that fails, on numbers, since not every
    operation knows its shapes without them."""
    before = tagger.training
    fact = ""
    for device in ("meta", "cpu"):
        x = torch.zeros(batch, 1, len(tagger.mean), n_frames, device=device)
        state = {key: value.clone().to(device) for key, value in tagger.state_dict().items()}  # norms would change it
        try:
            with torch.no_grad():
                logits = torch.func.functional_call(tagger.train(training), state, x)
            if logits.shape == (batch, len(tagger.prior)):
                return
            fact = f"it answers {tuple(logits.shape)}, not a logit per clip and class"
        except Exception as error:  # timm's networks raise whatever they like
            fact = " ".join(str(error).split())[:200] or type(error).__name__
        finally:
            tagger.train(before)
    n_mels = len(tagger.mean)
    raise UserError(f"this network cannot take {batch} x {n_mels} mels x {n_frames} frames ({fact}): {remedy}")


def save_tagger(state: dict[str, Tensor], file: Path) -> None:
    """A tagger's state dict as .safetensors."""
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, file)


def load_tagger(cfg: Config, file: Path) -> Tagger:
    """A trained tagger, on the CPU, ready to predict. Raises UserError where the file does not fit the config."""
    try:
        state = load(file.read_bytes())  # load_file takes no path that is not UTF-8
        prior, mean, std = (state[key].numpy() for key in ("prior", "mean", "std"))
        tagger = build_tagger(cfg, prior, mean, std, start=False)
        tagger.load_state_dict(state)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in many ways, and so do tensors of other shapes or types
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: not the weights of a {cfg.model.name} of this kit: {fact}") from None
    return tagger.eval()


def normalisation(store: Store, rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """What is taken from the log-mel and what it is divided by, both (n_mels,) float32.

    'per_mel': mean and standard deviation of each band over these clips, every clip with the same weight; 'global': of
    all bands together; 'decibel': 0 and ln(10) / 10, which turns the natural logarithm of power into 10 log10.
    """
    if kind == "decibel":
        n_mels = store.frames.shape[1]
        return np.zeros(n_mels, np.float32), np.full(n_mels, np.log(10) / 10, np.float32)
    heard = rows[store.length[rows] > 0]
    mean = store.mean[heard].mean(axis=0, dtype=np.float64)
    square = store.mean_square[heard].mean(axis=0, dtype=np.float64)
    if kind == "global":
        mean, square = np.full_like(mean, mean.mean()), np.full_like(square, square.mean())
    std = np.sqrt(np.maximum(square - mean**2, LEAST_STD**2))
    return mean.astype(np.float32), std.astype(np.float32)


def choose_device(wanted: str) -> torch.device:
    """'auto' takes the GPU where there is one. Raises UserError where 'cuda' is wanted and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device=cuda, but PyTorch sees no GPU here: use train.device=auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: str, device: torch.device) -> str:
    """'auto' -> what the hardware gains from: bf16 on newer GPUs and on CPUs that multiply faster in it, fp16 on older
    GPUs, else fp32. Raises UserError on fp16 for a CPU, which has none."""
    if wanted == "fp16" and device.type == "cpu":
        raise UserError("train.precision=fp16 is for GPUs, and this trains on a CPU: use train.precision=auto")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if _cpu_gains_from_bf16() else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which the network runs in that precision."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, dtype=kinds.get(precision), enabled=precision in kinds)


def _cpu_gains_from_bf16() -> bool:
    """AMX and AMD's AVX-512 bf16 do more multiplications a cycle in bf16 than in fp32: on AMD training was 1.7 to 2.1
    times as fast. Intel's AVX-512 bf16 does not, and training took 1.4 to 1.5 times as long. Without any of them bf16
    is emulated, 20 times slower than fp32."""
    try:
        with open("/proc/cpuinfo") as info:  # noqa: PTH123
            facts = dict(line.split(":", 1) for line in info if line.startswith(("flags", "vendor_id")))
    except OSError:
        return False
    found = {key.strip(): value.split() for key, value in facts.items()}
    flags = found.get("flags", [])
    return "amx_bf16" in flags or ("avx512_bf16" in flags and found.get("vendor_id") == ["AuthenticAMD"])
