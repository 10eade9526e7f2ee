"""Results of runs -> the difference that each technique makes, with its error, and the table of them all."""

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
FEWEST = 3  # pairs of runs that a verdict takes
HEADER = ["technique", "off", "difference", "SE", "n", "time", "verdict", "note"]


@dataclass(frozen=True)
class Effect:
    """Of a technique on a condition. off: mean MAP@3 without it. difference: of the mean with it. se: standard error of
    the difference, NaN for one pair. n: pairs of runs. time: median of the pairs' ratio of seconds; `predicts`: of
    prediction alone. equal: every pair has the same score, to the last bit."""

    off: float
    difference: float
    se: float
    n: int
    time: float
    predicts: bool
    equal: bool

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
    """Over the folds and seeds for which there are both runs; None where there is no such pair."""
    pairs = [
        (results[condition, comparison.on, fold, seed], results[condition, comparison.off, fold, seed])
        for where, recipe, fold, seed in results
        if (where, recipe) == (condition, comparison.on) and (condition, comparison.off, fold, seed) in results
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
