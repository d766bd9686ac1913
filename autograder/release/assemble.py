"""Makes one module out of several: `checks.py` from the reader, the probes, the judge and the runner.

Only what `check` needs is taken, word for word with its comments, so that a student can read it. What a
definition needs is found from the global names that it uses.
"""

import ast
import inspect
import symtable
from collections.abc import Iterable, Iterator
from types import ModuleType

Import = tuple[str, str, str]  # module, name ("" for the module itself), name here


class Source:
    """A module's top-level statements by the names they define, and its imports by the names they give."""

    def __init__(self, module: ModuleType) -> None:
        self.text = inspect.getsource(module)
        self.about = (module.__doc__ or module.__name__).splitlines()[0].split(". ")[0].rstrip(".")
        self.statements: dict[str, ast.stmt] = {}
        self.imports: dict[str, Import] = {}
        for node in ast.parse(self.text).body:
            if isinstance(node, ast.Import):
                for name in node.names:
                    self.imports[name.asname or name.name.split(".")[0]] = (name.name, "", name.asname or "")
            elif isinstance(node, ast.ImportFrom):
                for name in node.names:
                    self.imports[name.asname or name.name] = (str(node.module), name.name, name.asname or "")
            else:
                self.statements |= dict.fromkeys(_defined(node), node)

    def words(self, node: ast.stmt) -> str:
        """Return the text of a statement, with its decorators and the comment lines right above it."""
        lines = self.text.splitlines()
        start = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))]) - 1
        while start > 0 and lines[start - 1].startswith("#"):
            start -= 1
        return "\n".join(lines[start : node.end_lineno])


def assemble(modules: Iterable[ModuleType], wanted: Iterable[tuple[str, str]]) -> str:
    """Return one module's text with the `wanted` (module name, name) and everything that they need.

    Definitions keep the order of `modules` and of their lines. Raises ValueError when one needs a part of
    this package that is not among `modules` (such as the reference), or when two have the same name.
    """
    sources = {module.__name__: Source(module) for module in modules}
    taken: dict[str, str] = {}
    imports: set[Import] = set()
    waiting = list(wanted)
    for where, name in waiting:
        if name not in sources[where].statements:
            raise ValueError(f"{name} is not defined at the top of {where}")
    while waiting:
        where, name = waiting.pop()
        source = sources[where]
        if name in source.imports:
            origin, original, _ = source.imports[name]
            if origin in sources and original:
                waiting.append((origin, original))
            elif origin.split(".")[0] == "autograder":
                raise ValueError(f"{where} uses {name} from {origin}, which checks.py cannot contain")
            else:
                imports.add(source.imports[name])
        elif name in source.statements and taken.get(name) != where:
            if name in taken:
                raise ValueError(f"{name} is defined both in {taken[name]} and in {where}: rename one")
            taken[name] = where
            needed = global_names(source.words(source.statements[name]))
            waiting += [(where, each) for each in sorted(needed)]
    parts = ["\n".join(_import_lines(imports))]
    for where, source in sources.items():
        nodes = {id(node): node for name, node in source.statements.items() if taken.get(name) == where}
        if nodes:
            parts.append(f"# ==== {source.about}")
            parts += [source.words(node) for node in sorted(nodes.values(), key=lambda node: node.lineno)]
    return "\n\n\n".join(parts) + "\n"


def _defined(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    for target in getattr(node, "targets", None) or [getattr(node, "target", None)]:
        yield from (name.id for name in ast.walk(target or ast.Pass()) if isinstance(name, ast.Name))


def global_names(text: str) -> set[str]:
    """Return the global names that a definition uses."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    return set(walk(symtable.symtable(text, "<definition>", "exec")))


def _import_lines(imports: set[Import]) -> list[str]:
    """Return import statements, one a module: the standard library first, then the others."""
    lines = []
    for module in sorted({origin for origin, _, _ in imports}):
        names = sorted((name, alias) for origin, name, alias in imports if origin == module)
        spelled = [f"{name} as {alias}" if alias else name for name, alias in names if name]
        lines += [f"import {module}{' as ' if alias else ''}{alias}" for name, alias in names if not name]
        lines += [f"from {module} import {', '.join(spelled)}"] if spelled else []
    return lines
