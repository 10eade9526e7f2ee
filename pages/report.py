"""The report of a blend with its clips, or of the finished experiments alone: gathered for `page.render`."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blending.bootstrap import Judge
from blending.candidates import Candidates
from blending.ensemble_folder import Ensemble, load_ensemble, same_runs
from blending.label_errors import read_candidates, suspects
from blending.report import by_class, losses_of
from configs.files import lock, write
from configs.paths import Paths
from console.errors import UserError, count, list_some
from input.competition import Competition, load_competition
from metrics.metric import find_metric
from pages import sound
from pages.again import expectation
from pages.clips import Clip, clip_rows, most_telling
from pages.experiments import compare_experiments, curves, read_experiments
from pages.page import render
from runs.provenance import git_revision
from runs.run_folder import Run

CODE = Path(__file__).resolve().parent.parent


def report_experiments(paths: Paths, names: Sequence[str] = ()) -> tuple[Path, list[dict[str, Any]]]:
    """Write work/report.html, all finished experiments (or the named ones) side by side; its path, and the rows of its
    table. Raises UserError where none is finished."""
    found = read_experiments(paths.runs)
    if unknown := [name for name in names if name not in found]:
        raise UserError(
            f"{paths.runs}: no finished fold of {', '.join(unknown)}: there are {', '.join(found) or 'none'}"
        )
    found = {name: runs for name, runs in found.items() if not names or name in names}
    if not found:
        raise UserError(f"{paths.runs}: no finished fold: python train_fold.py --fold 0{paths.options}")
    rows = compare_experiments(found)
    data = _common(f"Experiments in {paths.runs}", [], rows, list(found.values()))
    write(paths.work / "report.html", render(data))
    return paths.work / "report.html", rows


def report_blend(paths: Paths, name: str, pictures: int, with_sound: bool, one_file: bool = False) -> Path:
    """Write report.html into the blend's folder, over the short one of ensemble.py, with the clips; its path.

    pictures: how many clips get one, and with_sound a short copy of their sound in the folder sound/, with one_file
    inside the page. Raises UserError where the blend is made from predictions from elsewhere, or its runs or labels
    changed since.
    """
    folder = paths.ensemble(name)
    ensemble = load_ensemble(folder)
    if gone := [one for one in ensemble.blend.models if not (paths.runs / one).is_dir()]:
        raise UserError(
            f"{folder}: made from predictions that are not in {paths.runs} ({list_some(gone, 3)}): its clips cannot be "
            f"shown; --runs NAME compares experiments without a blend"
        )
    competition = load_competition(paths.input, skip_missing=True, described_by=paths.described_by)
    competition, candidates, runs = read_candidates(competition, list(ensemble.blend.models), paths)
    competition = replace(competition, metric=ensemble.blend.metric)
    candidates = replace(candidates, metric=find_metric(ensemble.blend.metric, ensemble.blend.task))
    if not same_runs(ensemble, candidates):
        raise UserError(f"{folder}: its runs or labels changed since: python ensemble.py --force{paths.options}")
    page = folder / "report.html"
    oof = ensemble.oof.of(candidates.fnames, f"{folder}, out-of-fold")
    clips = clip_rows(candidates, oof, suspects(candidates, competition))
    shown = most_telling(clips, pictures)
    add_sound(clips, competition, page, shown if with_sound and not one_file else ())
    if one_file:
        put_sound_inside(clips, competition, shown)
    add_pictures(clips, shown, competition, runs, paths)
    rows = compare_experiments(read_experiments(paths.runs))
    left_out = [f"Left out: {one}: {why}." for one, why in ensemble.comparison.left_out.items()]
    facts = [_what(competition), *left_out, _noted(shown, len(clips), with_sound or one_file)]
    data = _common(f"Blend {name}: {ensemble.comparison.chosen}", facts, rows, runs)
    html = render(data | _scores(ensemble, candidates) | named(candidates) | {"clips": clips})
    with lock(folder):
        if load_ensemble(folder).blend != ensemble.blend:
            raise UserError(f"{folder}: another command made this blend meanwhile: run the same command again")
        write(page, html)
    return page


def add_sound(
    clips: list[Clip], competition: Competition, page: Path, copied: Sequence[int], key: str = "sound"
) -> None:
    """The address of its file to every clip, as `sound`; to those of `copied`, as `key`, that of a copy in the folder
    sound/ by the page."""
    path = dict(zip(competition.train["fname"], competition.train["path"], strict=True))
    for clip in clips:
        clip["sound"] = sound.address(path[clip["name"]], page)
    copies = sound.copies([path[clips[i]["name"]] for i in copied], page.parent / "sound") if copied else []
    for i, file in zip(copied, copies, strict=True):
        clips[i][key] = sound.address(file, page)


def put_sound_inside(clips: list[Clip], competition: Competition, copied: Sequence[int]) -> None:
    """A short copy of its sound to each clip of `copied`, as a data: address; the others keep theirs."""
    path = dict(zip(competition.train["fname"], competition.train["path"], strict=True))
    with tempfile.TemporaryDirectory(prefix="report-") as scratch:
        copies = sound.copies([path[clips[i]["name"]] for i in copied], Path(scratch))
        for i, file in zip(copied, copies, strict=True):
            clips[i]["sound"] = sound.inside(Path(file)) if file else ""


def add_pictures(
    clips: list[Clip], shown: Sequence[int], competition: Competition, runs: list[list[Run]], paths: Paths
) -> None:
    """Their log-mel, by the settings of the first experiment, to the clips of `shown`."""
    names = [clips[i]["name"] for i in shown]
    drawn = sound.pictures(runs[0][0].config.features, competition.train, names, paths) if names else []
    for i, picture in zip(shown, drawn, strict=True):
        clips[i]["picture"] = picture


def named(candidates: Candidates) -> dict[str, Any]:
    return {"classes": list(candidates.classes), "models": list(candidates.names), "task": candidates.task}


def _common(title: str, facts: list[str], rows: list[dict[str, Any]], runs: list[list[Run]]) -> dict[str, Any]:
    revisions = sorted({_short(run.manifest.git_revision) for some in runs for run in some})
    made = f"Made on {time.strftime('%Y-%m-%d at %H:%M')} by commit {_short(git_revision(CODE))}"
    facts = [*facts, f"{made}; runs trained by {', '.join(revisions)}."]
    return {"mode": "report", "title": title, "facts": facts, "expected": "", "methods": None, "clips": None} | {
        "experiments": [{k: v for k, v in row.items() if k != "order"} for row in rows],
        "curves": curves(runs),
        "classes": [],
    }


def _short(revision: str | None) -> str:
    """Twelve digits of a commit, with the '-dirty' of changed code."""
    commit, dash, dirty = (revision or "unknown").partition("-")
    return commit[:12] + dash + dirty


def _what(of: Competition) -> str:
    task = "one label per clip" if of.task == "single_label" else "several labels per clip"
    title = find_metric(of.metric, of.task).title
    size = f"{count(len(of.classes), 'class')}, {count(len(of.train), 'training clip')}"
    return f"{of.folder.name}: {task}, {size}, scored by {title}."


def _noted(shown: Sequence[int], clips: int, with_sound: bool) -> str:
    what = "a picture and a short copy of their sound" if with_sound else "a picture"
    rest = (
        "" if len(shown) == clips else f", of {clips}: the likeliest label errors, the worst and the most disputed ones"
    )
    return f"{count(len(shown), 'clip')} have {what}{rest}." + (
        "" if with_sound else " Sound is played from the original files."
    )


def _scores(ensemble: Ensemble, c: Candidates) -> dict[str, Any]:
    """What to expect, the table of models and methods, the classes, and the confusion matrix."""
    compared, blend = ensemble.comparison, ensemble.blend
    judged = c.verified if compared.decide == "verified" else np.ones(len(c.truth), dtype=bool)
    truth, probs, oof = c.truth[judged], ensemble.oof.of(c.fnames, "the blend")[judged], c.oof[:, judged]
    judge = Judge(c.metric, c.truth, c.group).at(judged)
    gains, errors = [judge.gain(one) for one in oof], np.nanstd(judge.drawn(list(oof)), axis=1)
    rows = [
        _row(name, "model", judge.sign * gain, (judge.sign * gain - 1.96 * e, judge.sign * gain + 1.96 * e))
        | {"weight": blend.models[name].weight}
        for name, gain, e in zip(c.names, gains, errors, strict=True)
    ]
    for name, one in compared.methods.items():
        more = {
            "fitted": _finite(one.fitted),
            "gain": _finite(one.to_single.difference),
            "chosen": name == compared.chosen,
        }
        rows.append(_row(name, "method", one.score, one.interval) | more)
    what, of_class = by_class(c.metric)
    columns = zip(
        c.classes, truth.sum(axis=0), of_class(probs, truth), of_class(oof[int(np.argmax(gains))], truth), strict=True
    )
    confusion = None
    if c.task == "single_label":
        matrix = np.zeros((len(c.classes), len(c.classes)), dtype=np.int64)
        np.add.at(matrix, (c.label_index, ensemble.oof.of(c.fnames, "the blend").argmax(axis=1)), 1)
        confusion = matrix.tolist()
    losses, compared_by = losses_of(oof, truth, c.metric)
    offsets = dict(zip(c.classes, blend.offsets or (), strict=False))
    return {
        "metric": c.metric.title,
        "alike": _correlation(losses),
        "alike_note": f"Correlation of the {compared_by}: models that err apart help each other.",
        "greedy": [[name, _finite(score)] for name, score in compared.greedy_path],
        "unverified": [{"weight": float(w), "score": _finite(s)} for w, s in compared.unverified_weight.items()],
        "expected": expectation(ensemble, c.metric.title),
        "score_note": f"On the {count(compared.rows, 'clip')} that decide ({compared.decide}); methods are nested: the "
        "blend of a fold is fitted to the other folds. from, to: 95 % interval.",
        "class_note": f"{what}, on the clips that decide",
        "methods": rows,
        "by_class": [
            {"name": name, "clips": int(n), "blend": _finite(b), "single": _finite(s), "offset": offsets.get(name)}
            for name, n, b, s in columns
        ],
        "confusion": confusion,
    }


def _row(name: str, kind: str, score: float, interval: tuple[float, float]) -> dict[str, Any]:
    low, high = interval
    return {"name": name, "kind": kind, "score": _finite(score), "low": _finite(low), "high": _finite(high)}


def _correlation(losses: np.ndarray) -> list[list[float]]:
    """losses (models, values) -> (models, models); 0 for a model whose losses are all the same."""
    spread = losses.std(axis=1)
    centred = (losses - losses.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)[:, None]
    return np.round(centred @ centred.T / losses.shape[1], 3).tolist()


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
