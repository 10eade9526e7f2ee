"""Training clips whose label is likely wrong, by confident learning on out-of-fold probabilities."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from blending.candidates import Candidates
    from input.competition import Competition


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
