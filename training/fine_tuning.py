"""Fine-tuning: a learning rate for each layer, and what stays as it was loaded."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from configs.schema import Config, TrainConfig
from configs.user_code import is_user_code
from console.errors import UserError
from models.checkpointing import keep_few_activations
from models.parameter_groups import parameter_groups

LEAST_DECAY = 0.1  # no bound of the schema: a run that was trained with less can still be read


def set_up(network: nn.Module, cfg: Config) -> None:
    """Turn on what the config asks of the network itself. Raises UserError where a setting has nothing to act on."""
    t, name = cfg.train, cfg.model.name
    if t.layer_decay < LEAST_DECAY:
        fact = f"train.layer_decay={t.layer_decay:g}: below {LEAST_DECAY:g} only the last layers would learn"
        raise UserError(f"{fact}: use train.freeze_epochs or embedding:<network>")
    starts = cfg.model.weights or cfg.model.pretrained or is_user_code(name)
    for key in ("freeze_epochs", "freeze_batch_norm"):
        if getattr(t, key) and not starts:
            raise UserError(f"train.{key}: {name} starts at random, so there is nothing to keep: use model.weights")
    for key, off in (("head_lr", None), ("layer_decay", 1), ("freeze_epochs", 0)):
        if getattr(t, key) != off and len(parameter_groups(network)) < 2:
            raise UserError(f"train.{key}: {name} has nothing but a last layer: remove this setting")
    if t.freeze_batch_norm and not batch_norms(network):
        raise UserError(f"train.freeze_batch_norm: {name} has no batch norm below its last layer: use false")
    if t.checkpointing:
        keep_few_activations(network, name)


def optimizer_groups(network: nn.Module, cfg: TrainConfig) -> list[dict[str, Any]]:
    """The parameters for the optimizer, each group with its peak rate: the head's is train.head_lr, and the rate falls
    from the head to the input by train.layer_decay at each step of `parameter_groups`.

    Norms and biases are not decayed, as is usual. Sources: J. Howard and S. Ruder, "Universal Language Model
    Fine-tuning", 2018 (discriminative rates); H. Bao et al., "BEiT", 2021 (the same factor between all layers).
    """
    rates = [(cfg.lr, list(network.parameters()))]
    if cfg.head_lr is not None or cfg.layer_decay < 1:
        *body, (top, head) = parameter_groups(network)
        rates = [(cfg.lr * cfg.layer_decay ** (top - depth), parameters) for depth, parameters in body]
        rates.append((cfg.head_lr or cfg.lr, head))
    groups = []
    for lr, parameters in rates:
        decayed = [p for p in parameters if p.dim() > 1]
        plain = [p for p in parameters if p.dim() <= 1]
        pairs = ((decayed, cfg.weight_decay), (plain, 0.0))
        groups += [{"params": some, "weight_decay": decay, "lr": lr} for some, decay in pairs]
    return groups


def hold(network: nn.Module, cfg: TrainConfig, epoch: int) -> None:
    """Hold still what does not learn in this epoch, counted from 0, and let go what does again.

    Below the head: all weights and the statistics of batch norm in the first train.freeze_epochs, the statistics alone
    with train.freeze_batch_norm. Held statistics are what the network normalises by, as in prediction.
    """
    frozen = epoch < cfg.freeze_epochs
    if cfg.freeze_epochs:
        for _, parameters in parameter_groups(network)[:-1]:
            for parameter in parameters:
                parameter.requires_grad_(not frozen)
    if cfg.freeze_epochs or cfg.freeze_batch_norm:
        for module in batch_norms(network):
            module.train(not (frozen or cfg.freeze_batch_norm))


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Those below the head."""
    head = {id(parameter) for parameter in parameter_groups(network)[-1][1]}
    found = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [module for module in found if not any(id(parameter) in head for parameter in module.parameters())]
