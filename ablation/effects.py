"""Results of runs -> the difference that each technique makes, with its standard error, and their table."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.job import Id
from ablation.techniques import CONDITIONS, Comparison, Plan
from configs.files import write

Results = Mapping[Id, Mapping[str, Any]]
FEWEST = 3  # pairs of runs that a verdict needs
HEADER = ["technique", "off", "difference", "SE", "n", "time", "verdict", "note"]


@dataclass(frozen=True)
class Effect:
    """The effect of a technique on a condition."""

    off: float  # mean MAP@3 without the technique
    difference: float  # of the mean with it
    se: float  # standard error of the difference; NaN for one pair
    n: int  # pairs of runs
    time: float  # median of the pairs' ratios of seconds
    predicts: bool  # whether these are seconds of prediction alone
    equal: bool  # whether the two scores of every pair are equal to the last bit

    @property
    def verdict(self) -> str:
        if self.n < FEWEST:
            return "too few runs"
        if self.equal:
            return "changes nothing"
        if abs(self.difference) < 2 * self.se:
            return "no difference shown"
        return "helps" if self.difference > 0 else "hurts"


def effect(comparison: Comparison, condition: str, results: Results) -> Effect | None:
    """The effect over the folds and seeds that have both runs; None without such a pair."""
    pairs = [
        (on, results[off])
        for id, on in results.items()
        if id[:2] == (condition, comparison.on) and (off := id._replace(recipe=comparison.off)) in results
    ]
    if not pairs:
        return None
    differences = [on["map3"] - off["map3"] for on, off in pairs]
    n = len(pairs)
    return Effect(
        off=statistics.fmean(off["map3"] for _, off in pairs),
        difference=statistics.fmean(differences),
        se=statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.nan,
        n=n,
        time=statistics.median(on.get("ratio") or on["seconds"] / off["seconds"] for on, off in pairs),
        predicts="ratio" in pairs[0][0],
        equal=not any(differences),
    )


def rows_of(plan: Plan, condition: str, results: Results) -> list[list[str]]:
    """A row of cells, as HEADER names them, for each technique that has a pair of runs."""
    rows = []
    for comparison in plan.comparisons:
        if condition in comparison.conditions and (found := effect(comparison, condition, results)):
            time = f"{found.time:.2f}" + (" of prediction" if found.predicts else "")
            against = "" if comparison.off == "plain" or " in " in comparison.name else f", over {comparison.off}"
            cells = [comparison.name + against, f"{found.off:.4f}", f"{found.difference:+.4f}"]
            cells.append("" if math.isnan(found.se) else f"{found.se:.4f}")
            rows.append([*cells, str(found.n), time, found.verdict, comparison.note])
    return rows


def write_report(file: Path, about: str, tables: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Markdown with a table for each condition that has rows."""
    text = f"# What each technique is worth\n\n{about}\n"
    for condition in CONDITIONS:
        if rows := tables.get(condition):
            lines = ["| " + " | ".join(line) + " |" for line in (HEADER, ["---"] * len(HEADER), *rows)]
            text += f"\n## {condition}\n\n" + "\n".join(lines) + "\n"
    write(file, text)
