"""Train on Kaggle: bundle, dataset, kernel, its output as run folders, and a next kernel where the time was over.

A kernel goes on from the output of the one before, which Kaggle attaches to it. What was pushed is written down in
<work>/kaggle/<slug>/state.json, so that the same command finds it again.
"""

import hashlib
import json
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from configs.files import lock, write
from configs.forms import read_json, to_json
from configs.paths import Paths
from configs.schema import Config
from console.errors import UserError, list_some
from console.output import say
from folds.assign import parse_folds
from input.download import hints_for
from input.kaggle_client import Kaggle, KaggleFault
from submission import kernel
from submission.bundle import SLUG
from submission.kaggle_dataset import digest_of, push_dataset
from submission.kernel import KernelFailed
from submission.pull import fetch_report, pull_runs
from submission.training_bundle import Job, bundle_training
from submission.training_report import TrainingReport

MODULE = "submission.kernel_train"
LONGEST = 11.5 * 3600  # seconds; Kaggle stops every kernel after 12 hours, some after 9, and then keeps nothing of it
LONGEST_SLUG = 46  # Kaggle takes 50, and a number follows
MOST_FOLDS = 10_000


@dataclass(frozen=True)
class Wish:
    """What to train, and how."""

    experiments: list[Config]
    folds: str  # as --fold names them
    competition: str  # its address on Kaggle
    slug: str  # of the dataset; of the kernels with a number
    machine: str = kernel.MACHINE
    limit: float = 8.5 * 3600  # seconds of a kernel
    wheels: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PushedKernel:
    """A kernel of a training."""

    name: str  # owner/slug
    manifest_sha256: str  # of the bundle that it was pushed with
    report_sha256: str | None = None  # of the kit_runs.json that it left; None: not ended as far as we know
    progress: str | None = None  # digest of which folds it left finished, and of the epochs of the others


@dataclass(frozen=True)
class State:
    """state.json: the kernels of a training, of which each goes on from the one before."""

    job: str
    kernels: tuple[PushedKernel, ...] = ()
    finished: bool = False
    pushing: bool = False  # Kaggle has not answered whether it took the next kernel
    replaces: bool = False  # begun by --force: its runs replace those of their names

    @property
    def open(self) -> PushedKernel | None:
        """The kernel that has not ended, as far as is known here."""
        return self.kernels[-1] if self.kernels and self.kernels[-1].report_sha256 is None else None


class StateFile:
    """<work>/kaggle/<slug>/state.json, held by this process alone within `alone`."""

    def __init__(self, paths: Paths, slug: str) -> None:
        self.folder = paths.work / "kaggle" / slug
        self.path = self.folder / "state.json"

    def alone(self) -> AbstractContextManager[None]:
        return lock(self.folder, f"{self.folder}: another submission.push of this training is running: wait for it")

    def read(self) -> State | None:
        if not self.path.exists():
            return None
        return read_json(self.path, State, "remove it, and push the training again")

    def write(self, state: State) -> State:
        write(self.path, json.dumps(to_json(state), indent=1) + "\n")
        return state


def train(paths: Paths, wish: Wish, force: bool = False, detach: bool = False) -> None:
    """Push what was not pushed, wait, fetch what is finished, and go on until all is. detach: push, and do not wait.

    Raises UserError where a step fails; the same call goes on from there.
    """
    _check(wish)
    file = StateFile(paths, wish.slug)
    with file.alone():
        kaggle = Kaggle()
        _check_rules(kaggle, wish.competition)
        folder, job = bundle_training(
            paths, wish.experiments, wish.folds, kaggle.user, wish.slug, wish.competition, wish.wheels
        )
        state = _begin(file, job, wish, paths, force)
        while not state.finished:
            if state.open is None:
                state = _push_next(kaggle, file, state, folder, job, wish)
                if detach:
                    fetch = f"python -m submission.push --train --pull{_options(paths, wish)}"
                    say(f"not waiting: later fetch what it has finished: {fetch}")
                    return
            state = _settle(kaggle, file, state, paths, force, wait=not detach)
        say(f"{wish.slug}: finished: its runs are in {paths.runs}")


def pull(paths: Paths, slug: str, force: bool = False) -> None:
    """Fetch what the last kernel of a training has finished. Raises UserError where it still runs, or has failed."""
    file = StateFile(paths, slug)
    with file.alone():
        state = file.read()
        if state is None or not state.kernels:
            raise UserError(f"{file.path}: no training {slug} was pushed from here: use --slug, or push it with --fold")
        state = _settle(Kaggle(), file, state, paths, force, wait=False)
        if not state.finished:
            say(f"{slug}: not finished: the command that pushed it goes on with it")


def _options(paths: Paths, wish: Wish) -> str:
    """What --pull needs to find the same training."""
    return f" --slug {wish.slug}{replace(paths, described_by=None).options}"


def _check(wish: Wish) -> None:
    if not SLUG.fullmatch(wish.competition):
        raise UserError(f"{wish.competition}: is no competition's address: give its last part with --competition SLUG")
    if len(wish.slug) > LONGEST_SLUG:
        raise UserError(f"--slug {wish.slug}: at most {LONGEST_SLUG} letters, a number follows")
    if wish.slug == wish.competition:
        raise UserError(f"--slug {wish.slug}: is the competition's own name: choose another")
    if not 60 <= wish.limit <= LONGEST:
        raise UserError("--limit: from 1m to 11h30m, and half an hour less than Kaggle's own limit")


def _check_rules(kaggle: Kaggle, competition: str) -> None:
    """Raises UserError where the competition's rules were not accepted: before anything is uploaded."""
    step, method = f"looking up {competition}", kaggle.api.competition_list_files
    kaggle.call(step, method, competition, page_size=1, hints=hints_for(competition))


def _begin(file: StateFile, job: Job, wish: Wish, paths: Paths, force: bool) -> State:
    """The state to go on from. Raises UserError where another training has this slug, or a fold is trained already."""
    folds = parse_folds(wish.folds, MOST_FOLDS)
    there = [paths.run(cfg.name, fold) for cfg in wish.experiments for fold in folds]
    state = file.read()
    if state is not None and state.job == job.job and not force:
        if not state.finished or all(run.exists() for run in there):
            return state
        again = replace(state.kernels[-1], report_sha256=None)  # what it left is fetched again
        return replace(state, kernels=(*state.kernels[:-1], again), finished=False)
    if state is not None and state.open is not None and not force:
        raise UserError(
            f"{state.open.name}: another training is under way: fetch it with --train --pull, train beside it with "
            f"--slug NAME, or give it up with --force"
        )
    if (trained := [run for run in there if run.exists()]) and not force:
        raise UserError(f"trained already: {list_some(trained, 3)}: leave out these folds, choose name=NEW, or --force")
    return file.write(State(job.job, replaces=force))


def _push_next(kaggle: Kaggle, file: StateFile, state: State, folder: Path, job: Job, wish: Wish) -> State:
    """Push the kernel that goes on from the last one."""
    dataset, name = f"{kaggle.user}/{wish.slug}", f"{kaggle.user}/{wish.slug}-{len(state.kernels) + 1}"
    there = kernel.check_free(kaggle, name)
    push_dataset(kaggle, folder, dataset)
    arguments, sources = f"--limit {wish.limit:.0f}{'' if wish.machine == 'cpu' else ' --gpu'}", list[str]()
    if state.kernels:
        last = state.kernels[-1]
        arguments, sources = f"{arguments} --previous {last.report_sha256}", [last.name]
    constants = {"MANIFEST_SHA256": digest_of(folder), "COMPETITION": wish.competition}
    constants |= {"MODULE": MODULE, "OUTPUT": ".", "ARGUMENTS": arguments}
    script = file.folder / "kernel"
    kernel.write_kernel(script, name, constants, dataset, wish.competition, wish.machine, job.internet, sources)
    if state.pushing and kernel.is_under_way(kaggle, name, there, script):
        say(f"{name}: pushed before, goes on")
    else:
        file.write(replace(state, pushing=True))
        try:
            kernel.push_kernel(kaggle, script, name)
        except UserError as error:
            unanswered = isinstance(error, KaggleFault) and error.temporary
            file.write(replace(state, pushing=unanswered))
            raise
    return file.write(replace(state, pushing=False, kernels=(*state.kernels, PushedKernel(name, digest_of(folder)))))


def _settle(kaggle: Kaggle, file: StateFile, state: State, paths: Paths, force: bool, wait: bool) -> State:
    """Fetch what the last kernel has left, once it has ended. Raises UserError where it failed, or without `wait` still
    runs."""
    last = state.kernels[-1]
    if (owner := last.name.partition("/")[0]).lower() != kaggle.user.lower():
        raise UserError(f"{last.name}: you are {kaggle.user}: use a token of {owner}, or give it up with --force")
    try:
        if wait:
            kernel.wait_for_kernel(kaggle, last.name)
        else:
            kernel.check_complete(kaggle, last.name)
    except KernelFailed:
        if not state.finished:  # else its runs were fetched before, and it was deleted since
            file.write(replace(state, kernels=state.kernels[:-1]))  # the same command pushes it again
        raise
    with tempfile.TemporaryDirectory(dir=file.folder) as scratch:
        report, digest = fetch_report(kaggle, last.name, Path(scratch))
    if report.manifest_sha256 != last.manifest_sha256:
        raise UserError(f"{last.name}: its output is that of another version: wait some minutes, try again")
    say(f"{last.name}: {report.ended}: {report.progress}")
    pull_runs(kaggle, last.name, report, paths, force or state.replaces)
    ended = replace(last, report_sha256=digest, progress=_digest(report))
    before, finished = state.kernels[-2:-1], report.ended == "finished"
    state = file.write(replace(state, kernels=(*state.kernels[:-1], ended), finished=finished))
    if report.ended == "failed":
        words = kernel.last_words(kaggle, last.name)
        log = kernel.address_of(last.name)
        raise UserError(f"{last.name}: training failed: {words} ({log}): correct it, then the same command goes on")
    if not finished and ended.progress == (before[0].progress if before else _digest(None)):
        raise UserError(f"{last.name}: not one epoch in its time: raise --limit, or make an epoch shorter")
    return state


def _digest(report: TrainingReport | None) -> str:
    """Not of the files: those of TensorBoard grow with each kernel, also without a new epoch."""
    progress = [sorted(report.finished), report.begun] if report else [[], {}]
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()
