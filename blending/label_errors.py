"""Training clips whose label is likely wrong, by confident learning on out-of-fold probabilities."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.paths import Paths
from console.output import say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from blending.candidates import Candidates
    from input.competition import Competition
    from runs.run_folder import Run


@dataclass(frozen=True)
class Doubts:
    """What the list is made of."""

    listed: "pd.DataFrame"  # as `suspects` gives it, without what is left out
    rest: str  # what is left out, as it follows in a sentence
    known: dict[str, str]  # fname -> label, of the file of corrections
    competition: "Competition"  # without its test clips
    candidates: "Candidates"
    runs: list[list["Run"]]


def find_doubts(paths: Paths, names: list[str], verified: bool = False, corrections: Path | None = None) -> Doubts:
    """The likely errors of all labels or, unless `verified`, of the unverified ones, without those of `corrections`.

    Raises UserError as the reading of runs and competition does.
    """
    from input.competition import load_competition
    from input.corrections import read_corrections

    competition = load_competition(paths.input, skip_missing=True, described_by=paths.described_by)
    known = (
        read_corrections(corrections, competition.train, competition.classes, competition.task) if corrections else {}
    )
    competition, candidates, runs = read_candidates(competition, names, paths)
    found = suspects(candidates, competition)
    if not verified and candidates.verified.all():
        say("every label counts as verified: all are checked, as with --verified")
        verified = True
    corrected = found["fname"].isin(known)
    kept = found["verified"] & ~corrected & (not verified)
    more = [f"{kept.sum()} verified ones, which --verified lists"] if kept.any() else []
    more += [f"{corrected.sum()} that are corrected already"] if corrected.any() else []
    rest = f", without {' and '.join(more)}" if more else ""
    return Doubts(found[~corrected & ~kept], rest, known, competition, candidates, runs)


def read_candidates(
    competition: "Competition", names: list[str], paths: Paths
) -> tuple["Competition", "Candidates", list[list["Run"]]]:
    """The competition without its test clips, of which nothing is asked, and the named experiments (all finished ones
    where none is named). Raises UserError as `finished_runs` and `align`."""
    import numpy as np

    from blending.candidates import align, finished_runs
    from runs.predictions import TestPredictions

    competition = replace(competition, test=competition.test[:0])
    runs = finished_runs(paths.runs, names, competition)
    none = TestPredictions(np.zeros((len(runs), 0, len(competition.classes)), np.float32), {})
    return competition, align(runs, none, competition), runs


def suspects(candidates: "Candidates", competition: "Competition") -> "pd.DataFrame":
    """fname, given, suggested, p_given, p_suggested, verified, path; the most suspicious first.

    suggested: the likeliest label by the mean of all models; the more it is above the given one, the earlier it comes.
    """
    import numpy as np
    import pandas as pd

    probs = candidates.oof.mean(axis=0, dtype=np.float64)
    if candidates.task == "multi_label":
        return several_suspects(probs, candidates, competition)
    row = np.flatnonzero(likely_errors(probs, candidates.label_index))
    given, suggested = candidates.label_index[row], probs[row].argmax(axis=1)
    classes, fnames = np.array(candidates.classes), np.array(candidates.fnames)[row]
    path = dict(zip(competition.train["fname"], competition.train["path"], strict=True))
    found = pd.DataFrame(
        {
            "fname": fnames,
            "given": classes[given],
            "suggested": classes[suggested],
            "p_given": probs[row, given],
            "p_suggested": probs[row, suggested],
            "verified": candidates.verified[row],
            "path": [path[fname] for fname in fnames],
        }
    )
    order = np.argsort(found["p_given"] - found["p_suggested"], kind="stable")
    return found.iloc[order].reset_index(drop=True)


def several_suspects(probs: "np.ndarray", candidates: "Candidates", competition: "Competition") -> "pd.DataFrame":
    """As `suspects`, for several labels per clip: a row for each label that is likely missing or wrong.

    given: the label where it is likely wrong, else ''; suggested: the label where it is likely missing, else ''.
    p_given and p_suggested: the probability of what the table says of this label (has it or not), and of the
    opposite. The classes are judged one by one, each as a problem of two classes.
    """
    import numpy as np
    import pandas as pd

    truth, classes = candidates.truth, np.array(candidates.classes)
    found = [likely_errors(np.stack([1 - p, p], axis=1), t.astype(int)) for p, t in zip(probs.T, truth.T, strict=True)]
    row, label = np.nonzero(np.stack(found, axis=1))
    has, p = truth[row, label], probs[row, label]
    path = dict(zip(competition.train["fname"], competition.train["path"], strict=True))
    fnames = np.array(candidates.fnames)[row]
    table = pd.DataFrame(
        {
            "fname": fnames,
            "given": np.where(has, classes[label], ""),
            "suggested": np.where(has, "", classes[label]),
            "p_given": np.where(has, p, 1 - p),
            "p_suggested": np.where(has, 1 - p, p),
            "verified": candidates.verified[row],
            "path": [path[fname] for fname in fnames],
        }
    )
    order = np.argsort(table["p_given"] - table["p_suggested"], kind="stable")
    return table.iloc[order].reset_index(drop=True)


def likely_errors(probs: "np.ndarray", given: "np.ndarray") -> "np.ndarray":
    """(clips,) bool: whether a clip is confidently of another class than the given one, which is not its likeliest.

    probs (clips, classes) out-of-fold, given (clips,) class indices. A clip is confidently of a class where its
    probability reaches the mean one among the clips that are given that class; where it does so for several, the
    likeliest class counts. Source: C. Northcutt et al., "Confident Learning", 2021; equal to cleanlab's
    find_label_issues(filter_by="confident_learning"), whose tolerances the two small numbers are.
    """
    import numpy as np

    bar = np.full(probs.shape[1], np.inf)  # a class that no clip is given is no suspicion
    for k in np.unique(given):
        bar[k] = max(probs[given == k, k].mean(), 2e-6)
    confident = probs >= bar - 1e-6
    likeliest = probs.argmax(axis=1)
    guess = np.where(confident.sum(axis=1) > 1, likeliest, confident.argmax(axis=1))
    own = probs[np.arange(len(probs)), given]
    return np.asarray(confident.any(axis=1) & (guess != given) & (own < probs.max(axis=1)))
