"""The network for training and prediction: normalisation, input channels, backbone."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from configs.competition import Task
from configs.schema import Config
from console.errors import UserError
from models.build import build_model
from models.embedding_head import EmbeddingHead

REACH = 4  # frames on each side of a frame for its slope


class Tagger(nn.Module):
    """(batch, 1, n_mels, n_frames) log-mel -> (batch, n_classes) logits.

    mean and std (n_mels,) of the training clips and prior (n_classes,), the prediction for clips without sound, are
    saved with the weights, so that prediction needs no more. deltas and frequency_channel: more input channels of the
    backbone, computed from the normalised log-mel. task: what `probabilities` makes of the logits.
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
        task: Task = "single_label",
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std), ("prior", prior)):
            self.register_buffer(name, values.clone().float())
        self.backbone = backbone
        self.deltas, self.frequency_channel = deltas, frequency_channel
        self.channels_last, self.task = channels_last, task
        if channels_last:
            self.backbone.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean.view(1, 1, -1, 1)) / self.std.view(1, 1, -1, 1)
        x = input_channels(x, self.deltas, self.frequency_channel)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.backbone(x)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(batch, n_classes) logits -> probabilities of the same shape: rows that sum to 1 where a clip has one label,
        one for each class by itself where it may have several."""
        return logits.softmax(dim=1) if self.task == "single_label" else logits.sigmoid()


def build_tagger(
    cfg: Config,
    prior: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    start: bool = True,
    task: Task = "single_label",
) -> Tagger:
    """An untrained tagger for len(prior) classes; start=False skips starting weights, see `build_model`."""
    mean_t, std_t, prior_t = (torch.from_numpy(values) for values in (mean, std, prior))
    if (
        cfg.model.frozen is not None
    ):  # what is trained is a head on embeddings; `mean` has one number for each of theirs
        head = EmbeddingHead(len(mean), len(prior), cfg.model.head)
        return Tagger(head, mean_t, std_t, prior_t, channels_last=False, task=task)
    backbone = build_model(cfg, len(prior), start)
    deltas, frequency = cfg.model.deltas, cfg.model.frequency_channel
    return Tagger(backbone, mean_t, std_t, prior_t, cfg.train.channels_last, deltas, frequency, task)


def check_input_size(tagger: Tagger, batch: int, n_frames: int, training: bool, remedy: str) -> None:
    """Raises UserError if the network cannot take such a batch: too few cells to pool, a single one to normalise, or
    another fixed size. Tested on shapes only, then on numbers, since some operations do not support shapes only."""
    before = tagger.training
    fact = ""
    for device in ("meta", "cpu"):
        x = torch.zeros(batch, 1, len(tagger.mean), n_frames, device=device)
        state = {
            key: value.clone().to(device) for key, value in tagger.state_dict().items()
        }  # normalisation would change it
        try:
            with torch.no_grad():
                logits = torch.func.functional_call(tagger.train(training), state, x)
            if logits.shape == (batch, len(tagger.prior)):
                return
            fact = f"it returns {tuple(logits.shape)}, not a logit per clip and class"
        except Exception as error:  # timm's networks raise all kinds
            fact = " ".join(str(error).split())[:200] or type(error).__name__
        finally:
            tagger.train(before)
    n_mels = len(tagger.mean)
    raise UserError(f"this network cannot take {batch} x {n_mels} mels x {n_frames} frames ({fact}): {remedy}")


def save_tagger(state: dict[str, Tensor], file: Path) -> None:
    """A tagger's state dict as .safetensors."""
    own = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    save_file(own, file)  # cloned: it rejects weights that layers share


def load_tagger(cfg: Config, file: Path, task: Task = "single_label") -> Tagger:
    """A trained tagger, on the CPU, ready to predict. task: of its run's manifest.

    Raises UserError if the file does not fit the config.
    """
    try:
        state = load(file.read_bytes())  # load_file only takes UTF-8 paths
        prior, mean, std = (state[key].numpy() for key in ("prior", "mean", "std"))
        tagger = build_tagger(cfg, prior, mean, std, start=False, task=task)
        tagger.load_state_dict(state)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # damaged files and wrong shapes or types raise many kinds
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: not the weights of a {cfg.model.name} of this kit: {fact}") from None
    return tagger.eval()


def input_channels(x: Tensor, deltas: int = 0, frequency_channel: bool = False) -> Tensor:
    """(batch, 1, n_mels, n_frames) log-mel -> (batch, 1 + deltas + frequency_channel, n_mels, n_frames).

    The log-mel comes first, then its slope over time and the slope's slope, then a ramp over the mel bands from -1
    (lowest) to 1: a convolution cannot tell bands apart otherwise.
    """
    channels = [x]
    for _ in range(deltas):
        channels.append(slope(channels[-1]))
    if frequency_channel:
        ramp = torch.linspace(-1, 1, x.shape[2], device=x.device, dtype=x.dtype)
        channels.append(ramp.view(1, 1, -1, 1).expand_as(x))
    return torch.cat(channels, dim=1) if len(channels) > 1 else x


def slope(x: Tensor) -> Tensor:
    """The rise over nine frames of their least-squares line; the ends are replicated.

    Eight times librosa.feature.delta(width=9, mode="nearest"), whose rise per frame would be small beside a log-mel of
    standard deviation 1. x (..., n_mels, n_frames), at least one frame; the same shape is returned.
    """
    n_frames = x.shape[-1]
    last = torch.arange(-REACH, n_frames + REACH, device=x.device).clamp_(0, n_frames - 1)
    padded = x.index_select(-1, last)
    out = torch.zeros_like(x)
    for k in range(1, REACH + 1):
        ahead, behind = padded.narrow(-1, REACH + k, n_frames), padded.narrow(-1, REACH - k, n_frames)
        out = out.add(ahead - behind, alpha=k)
    return out * (REACH / sum(k * k for k in range(1, REACH + 1)))
