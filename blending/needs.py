"""How much a blend needs the fold models of each experiment, for `runs.budget`."""

from blending.apply import Blend

FITTED = ("log_linear", "stack")  # methods whose coefficients say little of how much an experiment counts


def needs(blend: Blend) -> dict[str, float]:
    """Experiment -> its weight, 0 where it does not count; 1 where the method has no share for an experiment."""
    alike = blend.method in FITTED or not any(model.weight > 0 for model in blend.models.values())
    used = blend.used
    return {name: (1.0 if alike else model.weight) if name in used else 0.0 for name, model in blend.models.items()}
