"""How much a blend needs each experiment, and the blend without some, for a budget of time."""

from collections.abc import Collection
from dataclasses import replace

from blending.apply import Blend
from runs.budget import Needs

FITTED = ("log_linear", "stack")  # methods whose coefficients were fitted together: none of them stands alone


def needs(blend: Blend) -> Needs:
    """By the weights, or alike where the method has no share for an experiment."""
    alike = blend.method in FITTED or not any(model.weight > 0 for model in blend.models.values())
    used = blend.used
    weights = {name: (1.0 if alike else model.weight) if name in used else 0.0 for name, model in blend.models.items()}
    return Needs(weights, alike)


def without(blend: Blend, names: Collection[str]) -> Blend:
    """The blend with weight 0 for these experiments, the other weights scaled to the same sum."""
    weights = {name: 0.0 if name in names else model.weight for name, model in blend.models.items()}
    scale = sum(model.weight for model in blend.models.values()) / sum(weights.values())
    models = {name: replace(model, weight=weights[name] * scale) for name, model in blend.models.items()}
    return replace(blend, models=models) if names else blend
