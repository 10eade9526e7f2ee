"""Code of the user's that a config names as 'my_file:name': its files are found and hashed, then it is imported.

A name is looked up in the folder where the command runs and where Python imports from, never in a run folder or a
bundle. Its files are read before anything of them runs. Only the standard library is imported here: the Kaggle kernel
needs it.
"""

import ast
import difflib
import hashlib
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from configs.schema import Config
from console.errors import UserError

# The kit's own folders, whose version is the git revision: what the user's code imports of them is not the user's.
KIT = {"ablation", "benchmarks", "blending", "configs", "console", "features", "folds", "input", "metrics", "models"}
KIT |= {"runs", "submission", "training", "tuning"}
INSTALLED = {"site-packages", "dist-packages"}


def is_user_code(name: str) -> bool:
    """Whether a setting names code of the user's and not something of the kit's."""
    return ":" in name and not name.startswith("timm:")


def user_files(cfg: Config) -> dict[str, Path]:
    """The files behind all code that a config names, as `source_files` has them."""
    named = [("model.name", cfg.model.name), ("train.loss", cfg.train.loss)]
    named += [("augment.extra", name) for name in cfg.augment.extra]
    named += [("augment.wave", name) for name in cfg.augment.wave]
    found: dict[str, Path] = {}
    for key, name in named:
        found |= source_files(name, key) if is_user_code(name) else {}
    return found


def hashes(files: dict[str, Path]) -> dict[str, str]:
    """The sha256 of each file."""
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sorted(files.items())}


def source_files(name: str, key: str) -> dict[str, Path]:
    """'my_package/my_file.py' -> file, of the file that holds a name and of the user's files that it imports.

    Nothing is executed. Files of the kit and of installed packages are not among them, but for the one that holds the
    name. key: the setting that errors name. Raises UserError where there is no such module or it is not Python.
    """
    module, _ = _split(name, key)
    if _find(module) is None:
        raise UserError(f"{key}: no file {module.replace('.', '/')}.py for {name} in {Path.cwd()} or on Python's path")
    found: dict[str, Path] = {}
    seen, todo = set[str](), list(_with_parents([module]))
    while todo:
        one = todo.pop()
        there = None if one in seen else _find(one)
        seen.add(one)
        if there is None or (one != module and (is_installed(there[1]) or one.partition(".")[0] in KIT)):
            continue
        place, file = there
        found[place] = file
        if not is_installed(file):
            with faults_in_one_line(name, key):
                todo += _with_parents(_imports(file, one))
    return found


def is_installed(file: Path) -> bool:
    """Whether a file came with Python or with a package, as opposed to one of the user's."""
    return bool(INSTALLED & set(file.parts)) or file.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve())


def load_callable(
    name: str, key: str, arguments: Sequence[str], options: Sequence[str] | None = None
) -> Callable[..., Any]:
    """The class or function of that name, imported. arguments: what it will be called with, by place; with options, the
    names of what it gets too if it asks for it, all by name.

    Raises UserError where it cannot be imported, is not there, or cannot be called like that.
    """
    module, attribute = _split(name, key)
    source_files(name, key)  # it is told where there is none
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: no file there may stand for a module of the kit or of Python
    with faults_in_one_line(name, key):
        there = importlib.import_module(module)
    if not hasattr(there, attribute):
        near = difflib.get_close_matches(attribute, vars(there), n=1)
        raise UserError(
            f"{key}: {there.__file__} has no {attribute!r}" + (f", did you mean {near[0]!r}?" if near else "")
        )
    found = getattr(there, attribute)
    if not callable(found):
        raise UserError(f"{key}: {name} is {type(found).__name__} and cannot be called: name a function or a class")
    try:
        signature = inspect.signature(found)
        asked = [option for option in options or () if option in signature.parameters]
        by_name = dict.fromkeys([*arguments, *asked]) if options is not None else {}
        signature.bind(**by_name) if by_name else signature.bind(*arguments)
    except TypeError as error:
        raise UserError(f"{key}: {name} must take ({', '.join(arguments)}), but takes {signature}: {error}") from None
    except ValueError:
        pass  # of some C code Python does not know the arguments
    return found


@contextmanager
def faults_in_one_line(name: str, key: str) -> Iterator[None]:
    """What the user's code raises within becomes a UserError that says what and in which line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which must not be imported for this
            raise
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(Path(frame.filename))]
        where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"{key}: {name} raises {type(error).__name__}: {fact}{where}") from error


def _is_ours(file: Path) -> bool:
    """Whether a line of a traceback is of no help to who wrote the code: the kit's, a package's or Python's own."""
    kit = file.parent.name in KIT and file.parents[1] == Path(__file__).parents[1]
    return kit or is_installed(file) or not file.is_file()


def _split(name: str, key: str) -> tuple[str, str]:
    """'my_package.my_file:MyNet' or 'my_package/my_file.py:MyNet' -> ('my_package.my_file', 'MyNet')."""
    module, _, attribute = name.rpartition(":")
    parts = list(Path(module[:-3]).parts) if module.endswith(".py") else module.split(".")
    if not all(part.isidentifier() for part in (*parts, attribute)):
        raise UserError(
            f"{key}: {name!r} names no code: write my_file:name or my_folder/my_file.py:name, below the current folder"
        )
    return ".".join(parts), attribute


def _find(module: str) -> tuple[str, Path] | None:
    """'my_package/my_file.py' and the file that Python would import, without importing anything; None where there is
    none, or it is not Python."""
    place = module.replace(".", "/")
    for folder in (*sys.path, str(Path.cwd())):
        for name in (f"{place}/__init__.py", f"{place}.py"):
            if (file := Path(folder, name)).is_file():
                return name, file.resolve()
    return None


def _imports(file: Path, module: str) -> Iterator[str]:
    """The modules that a file may import, wherever in it; names that are no modules are among them."""
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes(), file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = resolve_name(base, package) if node.level else base
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _with_parents(modules: Iterable[str]) -> Iterator[str]:
    """Of 'a.b' also 'a', which Python imports before it."""
    for module in modules:
        parts = module.split(".")
        yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
