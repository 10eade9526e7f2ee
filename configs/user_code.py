"""The user's own code, which a config names as 'my_file:name': find and hash its files, then import it.

Names are looked up in the current folder and on Python's path, never in a run folder or a bundle. The files are read
before any of them runs. Only the standard library is imported here, because the Kaggle kernel needs this module.
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

from configs.schema import EMBEDDING, Config
from console.errors import UserError

# The kit's own folders. They have the git revision as version and are not user code.
KIT = {"ablation", "benchmarks", "blending", "configs", "console", "features", "folds", "input", "metrics", "models"}
KIT |= {"runs", "pages", "submission", "training", "tuning"}
INSTALLED = {"site-packages", "dist-packages"}


def is_user_code(name: str) -> bool:
    """Whether a setting names user code and not a part of the kit."""
    return ":" in name and not name.startswith(("timm:", EMBEDDING))


def user_files(cfg: Config) -> dict[str, Path]:
    """The files of all user code that a config names, see `source_files`."""
    named = [("model.name", cfg.model.name), ("train.loss", cfg.train.loss)]
    named += [("augment.extra", name) for name in cfg.augment.extra]
    named += [("augment.wave", name) for name in cfg.augment.wave]
    found: dict[str, Path] = {}
    for key, name in named:
        found |= source_files(name, key) if is_user_code(name) else {}
    return found


def metric_files(metric: str) -> dict[str, Path]:
    """The files of a competition's metric where it is the user's own, see `source_files`; none for one of the kit."""
    return source_files(metric, "metric") if is_user_code(metric) else {}


def hashes(files: dict[str, Path]) -> dict[str, str]:
    """The sha256 of each file."""
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sorted(files.items())}


def source_files(name: str, key: str) -> dict[str, Path]:
    """'my_package/my_file.py' -> file, for the file that defines a name and the user's files that it imports.

    Nothing is executed. Files of the kit and of installed packages are skipped, except the one that defines the name.
    key: the setting that errors name. Raises UserError if there is no such module or it is not Python.
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
    """Whether a file belongs to Python or an installed package."""
    return bool(INSTALLED & set(file.parts)) or file.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve())


def load_callable(
    name: str, key: str, arguments: Sequence[str], options: Sequence[str] | None = None
) -> Callable[..., Any]:
    """Import the class or function of that name. arguments: the positional arguments it will be called with; if
    options are given, all arguments go by name, and options only if its signature has them.

    Raises UserError if it cannot be imported, does not exist, or cannot be called with these arguments.
    """
    module, attribute = _split(name, key)
    source_files(name, key)  # raises if there is none
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: no file there may replace a module of the kit or of Python
    with faults_in_one_line(name, key):
        imported = importlib.import_module(module)
    if not hasattr(imported, attribute):
        near = difflib.get_close_matches(attribute, vars(imported), n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{key}: {imported.__file__} has no {attribute!r}{hint}")
    found = getattr(imported, attribute)
    if not callable(found):
        raise UserError(f"{key}: {name} is {type(found).__name__}, not callable: name a function or a class")
    try:
        signature = inspect.signature(found)
        taken = [option for option in options or () if option in signature.parameters]
        by_name = dict.fromkeys([*arguments, *taken]) if options is not None else {}
        signature.bind(**by_name) if by_name else signature.bind(*arguments)
    except TypeError as error:
        raise UserError(f"{key}: {name} must take ({', '.join(arguments)}), but takes {signature}: {error}") from None
    except ValueError:
        pass  # Python does not know the arguments of some C code
    return found


@contextmanager
def faults_in_one_line(name: str, key: str) -> Iterator[None]:
    """Turn exceptions of the user's code into a UserError with the type, the text and the line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which must not be imported for this
            raise
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(Path(frame.filename))]
        where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"{key}: {name} raises {type(error).__name__}: {fact}{where}") from error


def _is_users(file: Path) -> bool:
    """Whether a file is the user's, and not of the kit, a package or Python."""
    kit = file.parent.name in KIT and file.parents[1] == Path(__file__).parents[1]
    return file.is_file() and not kit and not is_installed(file)


def _split(name: str, key: str) -> tuple[str, str]:
    """'my_package.my_file:MyNet' or 'my_package/my_file.py:MyNet' -> ('my_package.my_file', 'MyNet')."""
    module, _, attribute = name.rpartition(":")
    parts = list(Path(module[:-3]).parts) if module.endswith(".py") else module.split(".")
    if not all(part.isidentifier() for part in (*parts, attribute)):
        raise UserError(f"{key}: {name!r} does not name code: write my_file:name or my_folder/my_file.py:name")
    return ".".join(parts), attribute


def _find(module: str) -> tuple[str, Path] | None:
    """'my_package/my_file.py' and the file that Python would import; None if there is no such Python file."""
    place = module.replace(".", "/")
    for folder in (*sys.path, str(Path.cwd())):
        for name in (f"{place}/__init__.py", f"{place}.py"):
            if (file := Path(folder, name)).is_file():
                return name, file.resolve()
    return None


def _imports(file: Path, module: str) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; a name may also be a function of a module."""
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes(), file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = resolve_name(base, package) if node.level else base
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _with_parents(modules: Iterable[str]) -> Iterator[str]:
    """For 'a.b' also 'a', which Python imports first."""
    for module in modules:
        parts = module.split(".")
        yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
