"""Pack a blend for Kaggle: one folder for a private dataset with code, weights, and a manifest of every file.

python -m submission.bundle --owner me
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from modulefinder import ModuleFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.files import new_folder, recover
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError, count, list_some
from console.options import COMPILED, ENGINES, FILE, command_parser, share
from console.output import muted, progress, say, warn
from submission.kernel_script import MANIFEST_NAME

if TYPE_CHECKING:
    import pandas as pd

    from blending.apply import Blend

ROOT = Path(__file__).resolve().parent.parent
# what prediction imports
PACKAGES = ("console", "configs", "input", "metrics", "features", "folds", "models", "runs", "blending", "submission")
METADATA = "dataset-metadata.json"
SOUNDS = 64  # test clips that show how large activations become
LIMIT = 100 * 10**9  # bytes; Kaggle takes no larger dataset
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
PYTHON = re.compile(r"3\.\d{1,2}", re.ASCII)
OWNER = re.compile(r"[A-Za-z0-9_-]+")  # the letters of a Kaggle name


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], prog="python -m submission.bundle")
    parser.add_argument("--owner", default=os.environ.get("KAGGLE_USERNAME"), help="your Kaggle name (KAGGLE_USERNAME)")
    parser.add_argument("--slug", help="the dataset's name in its address (<competition>-kit)")
    share(
        parser, "input", "as", "work", "ensemble", competition="what the kernel predicts (the name of the input folder)"
    )
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what predicts on Kaggle's CPU (%(default)s)")
    share(parser, budget="leave out fold models until the kernel takes at most so long: 80m, 1h20m")
    parser.add_argument(
        "--wheel",
        **FILE | {"metavar": "auto|FILE"},
        nargs="+",
        default=[],
        help="wheels that Kaggle lacks; auto: pip brings all that the engine, frozen networks and FILEs need",
    )
    parser.add_argument("--kaggle-python", metavar="3.N", help="the Python that the wheels are for (Kaggle's)")
    args = parser.parse_args()
    if args.kaggle_python and not PYTHON.fullmatch(args.kaggle_python):
        parser.error(f"--kaggle-python {args.kaggle_python}: expected 3.N, such as 3.12")
    if args.kaggle_python and not args.wheel:
        parser.error("--kaggle-python says what --wheel is for: add --wheel auto")
    paths = Paths(args.input, args.work, args.described_by)
    more = args.wheel, args.competition, args.engine, args.budget, args.kaggle_python
    bundle(paths, args.ensemble, args.owner, args.slug, *more)


def bundle(
    paths: Paths,
    ensemble: str,
    owner: str | None,
    slug: str | None = None,
    wheels: Sequence[Path] = (),
    competition: str | None = None,
    engine: str = "auto",
    budget: float | None = None,
    python: str | None = None,
) -> Path:
    """Write <work>/kaggle/dataset/, whole or not at all; returns it.

    engine: what predicts in the kernel; auto measures OpenVINO where it is installed there, or by a wheel. For
    openvino and int8, and for auto where a wheel brings it, the networks go along converted. wheels, python: see
    `gather_wheels`. budget: seconds that the kernel may take. Raises UserError on a name that Kaggle refuses, a blend
    that is absent or whose runs changed, wheels that do not install there, or too large a bundle.
    """
    from blending.apply import write_blend
    from blending.ensemble_folder import load_ensemble
    from runs.provenance import git_revision
    from submission.packed_competition import FILE, default_competition, pack_competition, write_packed
    from submission.submission_file import check_form

    if competition is None and not paths.input.is_dir():
        raise UserError(f"{paths.input}: no such folder: name the competition with --input DIR or --competition SLUG")
    competition = competition or paths.input.resolve().name
    if not SLUG.fullmatch(competition):
        raise UserError(f"{competition}: is no competition's address: give its last part with --competition SLUG")
    metadata = dataset_metadata(owner, slug or f"{competition[:46].strip('-')}-kit")
    folder = paths.ensemble(ensemble)
    recover(folder)
    if not folder.exists():
        raise UserError(f"{folder}: no such blend: python ensemble.py{paths.options} makes it")
    blend = load_ensemble(folder).blend
    blend = replace(blend, models=blend.used)  # a greedy blend leaves models out; so does the bundle
    packed = pack_competition(paths, blend) if paths.input.is_dir() else default_competition(paths.input, blend)
    check_form(packed.form, blend.classes)
    sample = sounds_of(paths) if engine == "int8" else None  # before any work is done
    final = paths.work / "kaggle" / "dataset"
    with new_folder(final) as partial:
        write_blend(partial / "weights.json", blend)
        write_packed(partial / FILE, packed)
        copy_runs(paths, blend, partial / "weights", partial / "code")
        copy_code(partial / "code")
        check_code(partial / "code")
        brought = bring_wheels(wheels, engine, partial, python)
        about: dict[str, Any] = {"competition": competition, "ensemble": ensemble, "engine": engine}
        about |= {"budget": budget} if budget else {}
        if is_to_convert(engine, brought):
            about["converted"] = convert_runs(partial / "weights", sample)
        size = write_manifest(partial, {**about, "git_revision": git_revision(ROOT)})
        (partial / METADATA).write_text(json.dumps(metadata, indent=1))
    say(f"{metadata['id']}: {count(len(blend.models), 'experiment')}, {size / 1e6:.1f} MB -> {final}")
    return final


def dataset_metadata(owner: str | None, slug: str) -> dict[str, Any]:
    """What Kaggle asks of a dataset. The title has the words of the slug: the two must agree."""
    if not owner:
        raise UserError("whose dataset? Give your Kaggle name with --owner, or set KAGGLE_USERNAME")
    if not OWNER.fullmatch(owner):
        raise UserError(f"--owner {owner}: your Kaggle name as it stands in the address of your profile, nothing else")
    if not SLUG.fullmatch(slug) or not 6 <= len(slug) <= 50:
        raise UserError(f"--slug {slug}: 6 to 50 of a-z, 0-9 and single hyphens within")
    return {"id": f"{owner}/{slug}", "title": title_of(slug), "licenses": [{"name": "other"}]}


def title_of(slug: str) -> str:
    return slug.replace("-", " ").title()


def copy_into(source: Path, target: Path) -> None:
    """Copy a file, with the folders above its new place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_runs(paths: Paths, blend: "Blend", target: Path, code: Path) -> None:
    """The trained part of every run of the blend, and the user's own code of its network. Raises UserError where a run
    is not the one that was blended, or that code is not what it was made with."""
    from configs.user_code import is_installed
    from runs.clips import frozen_file_of
    from runs.network_code import network_code
    from runs.network_file import parts_of
    from runs.run_folder import TRAINED, finished_folds, read_run, read_trained

    for name, model in blend.models.items():
        runs = paths.runs
        changed = (
            f"{runs / name}: its runs changed since they were blended: python ensemble.py{paths.options} blends again"
        )
        folds, ids = finished_folds(runs / name), list[str]()
        if not folds or tuple(read_run(fold).id for fold in folds) != model.ids:
            raise UserError(changed)
        for fold in folds:
            own = network_code(read_trained(fold))  # the weights are what the run's manifest says
            for place, source in own.items():
                if not is_installed(source):  # of a package: --wheel brings it
                    copy_into(source, code / place)
            (target / name / fold.name).mkdir(parents=True)
            for file in (*TRAINED, "manifest.json"):
                shutil.copyfile(fold / file, target / name / fold.name / file)
            if (frozen := frozen_file_of(read_trained(fold))) and not (target / name / frozen.path.name).exists():
                whole = frozen.find()
                for part in parts_of(whole):  # its name is the same wherever it is found
                    copy_into(part, target / name / part.relative_to(whole.parent))
            ids.append(read_trained(target / name / fold.name).id)  # another process may have replaced it meanwhile
        if tuple(ids) != model.ids:
            raise UserError(changed)


def is_to_convert(engine: str, brought: Sequence[str]) -> bool:
    """Whether the networks go along converted; a warning says where that is not possible. brought: by the wheels."""
    from models.openvino_conversion import is_installed

    if engine == "auto" and "openvino" in brought and not is_installed():
        warn("OpenVINO is not installed here, so the kernel converts the networks itself: pip install '.[fast]'")
        return False
    return engine in COMPILED or (engine == "auto" and "openvino" in brought)


def sounds_of(paths: Paths) -> "pd.DataFrame":
    """Some test clips (fname, path), for NNCF to see how large activations become. Raises UserError without sound."""
    from input.competition import load_competition
    from models.quantised import import_nncf

    import_nncf()
    if not paths.input.is_dir():
        raise UserError(f"{paths.input}: --engine int8 needs the test sound: name its folder with --input DIR")
    with muted():
        test = load_competition(paths.input, skip_missing=True, described_by=paths.described_by).test
    there = test[test["path"].notna()]
    if there.empty:
        raise UserError(f"{paths.input}: --engine int8 needs the sound of some test clips: put it there")
    n = min(len(there), SOUNDS)
    return there.iloc[[i * len(there) // n for i in range(n)]].reset_index(drop=True)


def convert_runs(weights: Path, sample: "pd.DataFrame | None" = None) -> list[str]:
    """Add the networks as OpenVINO has them to the runs of a bundle; returns the experiments. One that cannot be
    converted goes as PyTorch, which a warning says. sample: test clips; then in eight bits. Raises UserError without
    OpenVINO."""
    from models.openvino_conversion import ConversionError, import_openvino
    from runs.converted import FOLDER, write_converted
    from runs.run_folder import read_trained

    import_openvino()  # before any work is done
    how = "" if sample is None else " in eight bits"
    done, experiments = list[str](), sorted(weights.iterdir())
    with progress("converting", len(experiments), "experiments") as advance:
        for experiment in experiments:
            folds = sorted(experiment.glob("fold*"))
            try:
                for fold in folds:
                    write_converted(read_trained(fold), fold / FOLDER, sample)
                done.append(experiment.name)
            except ConversionError as error:
                name = read_trained(folds[0]).config.model.name
                warn(f"{experiment.name}: {name}: {error}: it goes as PyTorch")
                for fold in folds:
                    shutil.rmtree(fold / FOLDER, ignore_errors=True)
            advance(1)
    say(f"converted for OpenVINO{how}: {len(done)} of {count(len(experiments), 'experiment')}")
    return done


def copy_code(target: Path, packages: Sequence[str] = PACKAGES) -> None:
    """The kit's modules that prediction needs, but none that git ignores."""
    for file in code_files(ROOT, packages):
        copy_into(ROOT / file, target / file)


def code_files(root: Path, packages: Sequence[str] = PACKAGES) -> list[Path]:
    """Modules of the packages, relative to `root`; those that lie deeper are not ours (input/<slug>/ is raw data). Only
    a repository of the kit's own may leave some out, not one that the kit was unpacked in."""
    from runs.provenance import ask_git

    there = [file.relative_to(root) for package in packages for file in sorted((root / package).glob("*.py"))]
    ignored = set(ask_git(root, "check-ignore", "-z", "--stdin", message="\0".join(map(str, there))).split("\0"))
    return [file for file in there if str(file) not in ignored]


def check_code(code: Path, name: str = "submission.kernel_predict") -> None:
    """Raises UserError where a module of ours is missing that the named one imports, at any depth."""
    main = code / f"{name.replace('.', '/')}.py"
    lacking = [] if main.is_file() else [name]
    if not lacking:
        finder = ModuleFinder([str(code)])
        finder.run_script(str(main))
        ours = {file.parent.name for file in ROOT.glob("*/__init__.py")}
        lacking = [name for name in finder.any_missing() if name.partition(".")[0] in ours]
    if lacking:
        raise UserError(
            f"{ROOT}: modules that Kaggle needs would not be packed: {list_some(sorted(lacking))}: unpack the kit "
            f"again, and see that its own .gitignore does not name them"
        )


def bring_wheels(wheels: Sequence[Path], engine: str, folder: Path, python: str | None) -> list[str]:
    """Put the wheels into a bundle with its networks; returns their packages. A warning names what neither brings."""
    from importlib.metadata import distributions

    from packaging.utils import canonicalize_name

    from submission import wheels as closed

    # a damaged installation has no name
    installed = {str(canonicalize_name(one.name)): one.version for one in distributions() if one.name}
    needs = closed.needed(engine, (file for file in folder.rglob("*") if file.is_file()), installed)
    brought = closed.gather_wheels(wheels, needs, folder / "wheels", python or closed.PYTHON)
    needs = [name for name in (text.partition("==")[0] for text in needs) if name not in brought]
    if gone := [name for name in needs if name != "openvino" or engine in COMPILED]:  # auto does without it
        warn(f"no wheel brings {list_some(gone)}, which the kernel needs and Kaggle may lack: add --wheel auto")
    return brought


def write_manifest(folder: Path, about: dict[str, Any]) -> int:
    """kit_manifest.json with size and sha256 of every file; returns their bytes. UserError where they are too many."""
    from runs.provenance import file_sha256

    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listed = {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": file_sha256(f)} for f in files}
    size = sum(f.stat().st_size for f in files)
    if size > LIMIT:
        largest = [str(f.relative_to(folder)) for f in sorted(files, key=lambda f: -f.stat().st_size)]
        raise UserError(
            f"{folder}: {size / 1e9:.0f} GB, Kaggle takes {LIMIT / 1e9:.0f}: blend fewer experiments "
            f"(ensemble.py --runs); largest are {list_some(largest, 3)}"
        )
    (folder / MANIFEST_NAME).write_text(json.dumps({**about, "files": listed}, indent=1, sort_keys=True))
    return size


if __name__ == "__main__":
    run_command(main)
