"""A contract of import-linter over the verbs: it reads packages, and the verbs are single files."""

import ast
from collections.abc import Iterator
from pathlib import Path

from grimp import ImportGraph
from importlinter import ContractCheck
from importlinter.contracts.forbidden import ForbiddenContract


class VerbContract(ForbiddenContract):
    """What `forbidden` is for packages; run it in the folder of the verbs."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        verbs = sorted(Path().glob("*.py"))
        for verb in verbs:
            if verb.stem in graph.modules:  # imported by a package, which another contract forbids: a closed box
                graph.remove_module(verb.stem)
            graph.add_module(verb.stem)
        for verb in verbs:
            for line, name in _imports(ast.parse(verb.read_text())):
                while name not in graph.modules and "." in name:
                    name = name.rpartition(".")[0]
                if name in graph.modules and name != verb.stem:
                    graph.add_import(importer=verb.stem, imported=name, line_number=line, line_contents="")
        return super().check(graph, verbose)


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of all that is imported, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
