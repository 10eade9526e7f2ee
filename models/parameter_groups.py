"""A network's parameters by depth: for learning rates that fall towards the input, and to freeze all but the head."""

from torch import nn

from models.starting_weights import last_layer

Group = tuple[int, list[nn.Parameter]]


def parameter_groups(network: nn.Module) -> list[Group]:
    """(depth, parameters) from the input, depth 0, to the head, the last; every parameter is in one group.

    timm has its own depths. In other networks every child is a step, and so is every item of a child that is a
    Sequential or a ModuleList. What has only vectors, such as a norm, belongs to the step before it; the network's own
    parameters, such as tables of positions, to the first. Your own network calls its last layer `head` or says its name
    in HEAD, otherwise its last step counts as the head. A rate for each depth: H. Bao et al., "BEiT", 2021.
    """
    prefixes = tuple(f"{name}." for name in last_layer(network))
    names = [name for name, _ in network.named_parameters()]
    head = [name for name in names if name.startswith(prefixes)]
    steps = _steps(network, [name for name in names if name not in head])
    groups = [[network.get_parameter(name) for name in step] for step in (*steps, head) if step]
    return list(enumerate(groups))


def _steps(network: nn.Module, names: list[str]) -> list[list[str]]:
    """Those names of parameters by step, in the order of the data."""
    if hasattr(network, "group_matcher"):
        from models.timm_networks import timm_steps

        return [[name for name in step if name in names] for step in timm_steps(network)]
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(_part(network, name), []).append(name)
    steps: list[list[str]] = []
    waiting: list[str] = []  # before the first layer
    for part, of_part in parts.items():
        if part and any(network.get_parameter(name).dim() > 1 for name in of_part):
            steps.append([*waiting, *of_part])
            waiting = []
        else:
            (steps[-1] if steps else waiting).extend(of_part)  # '' comes first of all
    return [*steps, waiting]


def _part(network: nn.Module, name: str) -> str:
    """The child or item that a parameter belongs to, '' for the network's own."""
    child, *rest = name.split(".")
    listed = rest and isinstance(network.get_submodule(child), nn.Sequential | nn.ModuleList)
    return f"{child}.{rest[0]}" if listed else child if rest else ""
