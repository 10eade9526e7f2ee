"""How much a blend needs each experiment, and the blend without some, for a budget of time."""

from collections.abc import Collection
from dataclasses import replace

from blending.apply import Blend
from console.errors import UserError
from metrics.metric import metric_title
from runs.budget import Needs

FITTED = ("log_linear", "stack")  # methods whose coefficients were fitted together: none of them stands alone


def needs(blend: Blend) -> Needs:
    """By the weights, or alike where the method has no share for an experiment, and by their worths where known."""
    alike = blend.method in FITTED or not any(model.weight > 0 for model in blend.models.values())
    used = blend.used
    weights = {name: (1.0 if alike else model.weight) if name in used else 0.0 for name, model in blend.models.items()}
    worths = {name: model.worth for name, model in used.items() if model.worth is not None}
    return Needs(weights, alike, worths, metric_title(blend.metric, blend.task))


def without(blend: Blend, names: Collection[str]) -> Blend:
    """The blend with weight 0 for these experiments, the other weights scaled to the same sum. Raises UserError where
    none that counts remains."""
    weights = {name: 0.0 if name in names else model.weight for name, model in blend.models.items()}
    total = sum(model.weight for model in blend.models.values())
    if total and not sum(weights.values()):
        raise UserError(f"--budget leaves no time for {' or '.join(blend.used)}, which the blend needs: give it more")
    scale = total / sum(weights.values()) if total else 1.0
    models = {name: replace(model, weight=weights[name] * scale) for name, model in blend.models.items()}
    return replace(blend, models=models) if names else blend
