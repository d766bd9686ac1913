"""The names of a notebook: what each is bound to, read from its code without running it."""

import ast
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Scope = dict[str, list[ast.AST | None]]


@dataclass(frozen=True)
class Statement:
    """A statement at the top level of a cell; `certain` to bind its names when its cell ran to the end."""

    node: ast.stmt
    cell: int
    certain: bool


def parse(source: str) -> ast.Module | None:
    """Return the syntax tree of a cell with IPython's magics blanked out, or None when it is not Python."""
    blanked = re.sub(r"\A\s*%%.*", "", source)
    magics = re.sub(r"(?m)^([ \t]*)[%!?].*$", r"\1pass", blanked)
    magics = re.sub(r"(?m)(=[ \t]*)[%!].*$", r"\1None", magics)
    for text in (blanked, magics):
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


class Notebook:
    """The names of a notebook, and what each is bound to at top level, in the order in which cells ran."""

    def __init__(self, sources: Sequence[str], ran: Sequence[bool] | None = None) -> None:
        self.sources = sources
        self.bound: dict[str, list[Statement]] = {}
        self.stars: list[str] = []
        self.imported_roots: set[str] = set()  # the packages of all imports, wherever they stand
        self._inner: dict[tuple[int, str], list[ast.AST]] = {}
        for number, source in enumerate(sources):
            tree = parse(source)
            for node in tree.body if tree else ():
                self.imported_roots |= {root for part in ast.walk(node) for root in _roots(part)}
                with contextlib.suppress(RecursionError):  # nobody writes such code; then it defines nothing
                    self._add(node, number, ran is None or ran[number])

    def _add(self, node: ast.stmt, cell: int, ran: bool) -> None:
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            self.stars.append(node.module or "")
        plain = isinstance(
            node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
        )
        names, changed = set(binds(node)), set(_changes(node))
        for name in names | changed:
            self.bound.setdefault(name, []).append(Statement(node, cell, ran and plain and name in names))

    def definitions(self, name: str) -> list[Statement]:
        """Return what may decide the meaning of a name: the last certain statement and all that follow."""
        found: list[Statement] = []
        for statement in reversed(self.bound.get(name, ())):
            found.append(statement)
            if statement.certain:
                break
        return found

    def inner(self, node: ast.stmt, name: str) -> list[ast.AST]:
        """Return the statements inside an `if`, `for`, `with`, ... that bind the name."""
        key = id(node), name
        if key not in self._inner:
            below = (child for child in statements(node) if child is not node)
            self._inner[key] = [child for child in below if name in set(binds_here(child))]
        return self._inner[key]

    def methods(self) -> set[str]:
        """Return the names of all methods of the notebook's classes."""
        classes = (s.node for found in self.bound.values() for s in found if isinstance(s.node, ast.ClassDef))
        return {item.name for node in classes for item in node.body if isinstance(item, ast.FunctionDef)}


def binds(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds where it stands; of functions, their globals too."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        for inner in ast.walk(node):
            if isinstance(inner, ast.Global):
                yield from inner.names
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    for child in ast.iter_child_nodes(node):
        yield from binds(child)


def _changes(node: ast.stmt) -> Iterator[str]:
    """Yield the names of objects that a top-level statement may change: `x.a = 1`, `x[0] = 1`, `x.add(1)`."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            return
        target: ast.AST | None = None
        if isinstance(inner, ast.Attribute | ast.Subscript) and isinstance(inner.ctx, ast.Store):
            target = inner
        elif isinstance(inner, ast.Call) and isinstance(node, ast.Expr):
            if isinstance(inner.func, ast.Attribute):
                target = inner.func
            elif isinstance(inner.func, ast.Name) and inner.func.id == "setattr" and inner.args:
                target = inner.args[0]
        elif isinstance(inner, ast.AugAssign):
            target = inner.target
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name):
            yield target.id


def scope(node: ast.AST) -> Scope:
    """Return the names bound in a function, class or comprehension, with what binds them (None: unknown)."""
    names: Scope = {}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        arguments = node.args
        listed = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        names = {each.arg: [None] for each in (*listed, arguments.vararg, arguments.kwarg) if each}
    body = node.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else [node]
    inside = [inner for item in body for inner in ast.walk(item)]
    outside = {name for inner in inside if isinstance(inner, ast.Global) for name in inner.names}
    for item in body:
        for statement in statements(item):
            for name in binds_here(statement):
                if name not in outside:
                    names.setdefault(name, []).append(statement)
    return names


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the node and everything below it but what nested functions and comprehensions hold."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            yield from statements(child)


def binds_here(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node binds, when it is of a kind that binds names."""
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.FunctionDef | ast.AsyncFunctionDef
                  | ast.ClassDef | ast.Import | ast.ImportFrom | ast.For | ast.comprehension | ast.withitem
                  | ast.ExceptHandler | ast.AugAssign):  # fmt: skip
        yield from binds(node)


def _roots(node: ast.AST) -> Iterator[str]:
    """Yield the packages that a node imports; one that only running tells is the package "?"."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield (node.module or "?").split(".")[0]
    elif getattr(node, "id", getattr(node, "attr", None)) in ("__import__", "import_module"):
        yield "?"


def imported(node: ast.AST, name: str | None = None) -> Iterator[str]:
    """Yield the dotted names that an import binds; with `name`, those that it binds to that name."""
    for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
        if isinstance(node, ast.ImportFrom):
            if alias.name != "*" and name in (None, alias.asname or alias.name):
                yield f"{node.module or ''}.{alias.name}"
        elif name in (None, alias.asname or alias.name.split(".")[0]):
            yield alias.name if alias.asname or name is None else alias.name.split(".")[0]
