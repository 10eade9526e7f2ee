"""What each model of a blend is worth: how much nested score is lost without it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from blending.apply import Blend
from blending.needs import FITTED, without

Fits = Mapping[int | None, Blend]  # a method's fits, by the fold that was left out; None: to all rows
DIGITS = 6  # of a worth: a smaller difference is rounding


def with_worths(fits: Fits, gain: Callable[[Fits], float]) -> Blend:
    """The fit to all rows, each used model with its `worth`, see `Model`. No fit is made: a model's weight becomes 0 in
    those that there are.

    gain: the score of the nested blend of such fits, higher for a better one. Models that may be left out are so one
    after the other, those of the least worth first: of two that are much alike each may be left out, but not both.
    """
    blend = fits[None]
    if blend.method in ("single", *FITTED) or len(blend.used) < 2:
        return blend

    def gain_without(*names: str) -> float | None:
        """None where a fit has no other model."""
        if any(set(fit.used) <= set(names) for fit in fits.values()):
            return None
        return gain({k: without(fit, names) for k, fit in fits.items()})

    whole = gain(fits)
    alone = {name: gain_without(name) for name in blend.used}
    worth = {name: _round(whole - score) for name, score in alone.items() if score is not None}
    gone, remains = list[str](), whole
    for name in sorted((name for name in worth if worth[name] <= 0), key=worth.__getitem__):
        if (score := gain_without(*gone, name)) is None:
            del worth[name]  # the last that is left: not known, so it stays
            break
        worth[name] = _round(remains - score)
        if worth[name] <= 0:
            gone, remains = [*gone, name], score
    return replace(blend, models={name: replace(one, worth=worth.get(name)) for name, one in blend.models.items()})


def _round(value: float) -> float:
    return round(value, DIGITS) + 0.0  # -0.0 would be written as such
