"""Static rules: which packages an exercise's definition uses, and which forbidden shortcuts, under any name.

The code is read, never run. From the definition of the exercise the search follows every name of the notebook
that it mentions: functions, classes with all their methods, aliases, and statements that change those
objects. What hides even from this (a name computed while running) shows in the trace of what torch ran.
"""

import ast
import builtins
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from autograder.grading.names import Notebook, Scope, imported, scope

# These find or run code by a text, so where something is forbidden they would hide it.
HIDING = ("builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__", "builtins.globals",
          "importlib", "torch.ops", "torch._C", "sys.modules", "builtins.__dict__")  # fmt: skip
Scopes = tuple[Scope, ...]


@dataclass(frozen=True)
class Finding:
    """A broken rule: what was used, and where. Cells and lines count from 1."""

    what: str
    cell: int
    line: int
    text: str
    package: bool = False  # whether it is a package that is not allowed

    def __str__(self) -> str:
        return f"`{self.what}` (code cell {self.cell}, line {self.line}: `{self.text}`)"


class Search:
    """Follows one exercise's definition through the notebook and collects what it must not use."""

    def __init__(self, notebook: Notebook, forbid: frozenset[str], allow: frozenset[str]) -> None:
        self.notebook = notebook
        self.forbid = forbid
        self.allow = allow | sys.stdlib_module_names
        self.methods = {
            name.rpartition(".")[2] for name in forbid if name.startswith("torch.Tensor.")
        } - notebook.methods()
        self.short = {(name.split(".")[0], name.rpartition(".")[2]) for name in forbid}
        self.findings: list[Finding] = []
        self._seen: set[int] = set()
        self._cell = 0

    def follow(self, name: str) -> None:
        """Look at everything that may decide what a name of the notebook means."""
        for statement in self.notebook.definitions(name):
            if id(statement.node) not in self._seen:
                self._seen.add(id(statement.node))
                if not isinstance(statement.node, ast.Import | ast.ImportFrom):
                    outer, self._cell = self._cell, statement.cell
                    self._visit(statement.node, ())
                    self._cell = outer

    def _visit(self, node: ast.AST, scopes: Scopes) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for dotted in imported(node):
                self._judge(dotted, node)
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            self._name(node, scopes)
        elif isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
            self._expression(node, scopes)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for part in (
                *getattr(node, "decorator_list", ()),
                *node.args.defaults,
                *filter(None, node.args.kw_defaults),
            ):
                self._visit(part, scopes)
            inside = (*scopes, scope(node))
            for part in node.body if isinstance(node.body, list) else [node.body]:
                self._visit(part, inside)
            return
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            scopes = (*scopes, scope(node))
        if isinstance(node, ast.ClassDef):  # the names of a class body are not seen by its methods
            here = (*scopes, scope(node))
            for part in (*node.decorator_list, *node.bases, *node.keywords, *node.body):
                self._visit(part, scopes if isinstance(part, ast.FunctionDef) else here)
            return
        for child in ast.iter_child_nodes(node):
            self._visit(child, scopes)

    def _name(self, node: ast.Name, scopes: Scopes) -> None:
        for dotted in self._resolve(node, scopes):
            self._judge(dotted, node)
        if not any(node.id in scope for scope in scopes):
            self.follow(node.id)

    def _expression(self, node: ast.Attribute | ast.Call | ast.Subscript, scopes: Scopes) -> None:
        found = self._resolve(node, scopes)
        for dotted in found:
            self._judge(dotted, node)
        if isinstance(node, ast.Attribute) and node.attr in self.methods and not found:
            self._report(f".{node.attr}()", node)
        if isinstance(node, ast.Call) and self.forbid:
            function = _last(node.func)
            texts = [text for argument in node.args if (text := _text(argument)) is not None]
            if function in ("attrgetter", "methodcaller", "getattr") and any(
                text.split(".")[-1] in self.methods for text in texts
            ):
                self._report(f".{texts[-1]}()", node)
            computed = function == "getattr" and len(node.args) > 1 and _text(node.args[1]) is None
            if (computed or (function == "vars" and node.args)) and any(
                dotted.split(".")[0] == "torch" for dotted in self._resolve(node.args[0], scopes)
            ):
                self._report(f"{function}(torch...)", node)

    # What an expression stands for, as dotted names of importable things

    def _resolve(self, node: ast.AST | None, scopes: Scopes, depth: int = 0) -> set[str]:
        if node is None or depth > 20:
            return set()
        if isinstance(node, ast.Name):
            return self._resolve_name(node.id, scopes, depth)
        if isinstance(node, ast.Attribute):
            return {f"{base}.{node.attr}" for base in self._resolve(node.value, scopes, depth + 1)}
        if isinstance(node, ast.Subscript) and (key := _text(node.slice)) is not None:
            value = node.value
            if isinstance(value, ast.Call) and _last(value.func) == "vars" and value.args:
                return {f"{base}.{key}" for base in self._resolve(value.args[0], scopes, depth + 1)}
            if isinstance(value, ast.Attribute) and value.attr == "__dict__":
                return {f"{base}.{key}" for base in self._resolve(value.value, scopes, depth + 1)}
        if isinstance(node, ast.Call):
            return self._resolve_call(node, scopes, depth)
        if isinstance(node, ast.IfExp):
            return self._resolve(node.body, scopes, depth + 1) | self._resolve(node.orelse, scopes, depth + 1)
        if isinstance(node, ast.NamedExpr):
            return self._resolve(node.value, scopes, depth + 1)
        return set()

    def _resolve_call(self, node: ast.Call, scopes: Scopes, depth: int) -> set[str]:
        function = _last(node.func)
        texts = [_text(argument) for argument in node.args]
        if function == "getattr" and len(texts) > 1 and texts[1] is not None:
            return {f"{base}.{texts[1]}" for base in self._resolve(node.args[0], scopes, depth + 1)}
        if function in ("__import__", "import_module") and texts and texts[0] is not None:
            return {texts[0] if function == "import_module" else texts[0].split(".")[0]}
        return set()

    def _resolve_name(self, name: str, scopes: Scopes, depth: int) -> set[str]:
        for level in range(len(scopes) - 1, -1, -1):
            if name in scopes[level]:
                bound = scopes[level][name]
                return {
                    dotted
                    for node in bound
                    for dotted in self._resolve_binding(node, name, scopes[: level + 1], depth)
                }
        statements = self.notebook.definitions(name)
        if statements:
            return {dotted for s in statements for dotted in self._resolve_binding(s.node, name, (), depth)}
        stars = {f"{module}.{name}" for module in self.notebook.stars if _exists(module, name)}
        return stars or ({f"builtins.{name}"} if hasattr(builtins, name) else set())

    def _resolve_binding(self, node: ast.AST | None, name: str, scopes: Scopes, depth: int) -> set[str]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return set(imported(node, name))
        if isinstance(node, ast.NamedExpr):
            return self._resolve(node.value, scopes, depth + 1)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            values = [value for target in targets for value in _paired(target, node.value, name)]
            return {dotted for value in values for dotted in self._resolve(value, scopes, depth + 1)}
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            inner = self.notebook.inner(node, name)
            return {found for part in inner for found in self._resolve_binding(part, name, scopes, depth + 1)}
        return set()

    # Rules

    def _judge(self, dotted: str, node: ast.AST) -> None:
        root, last = dotted.split(".")[0], dotted.rpartition(".")[2]
        if root != "builtins" and root not in self.allow:
            self._report(root, node, package=True)
        if not self.forbid:
            return
        hiding = any(dotted == name or dotted.startswith(name + ".") for name in HIDING)
        if hiding or dotted in self.forbid or (root, last) in self.short:
            self._report(dotted.removeprefix("builtins."), node)

    def _report(self, what: str, node: ast.AST, package: bool = False) -> None:
        line = getattr(node, "lineno", 1)
        lines = self.notebook.sources[self._cell].splitlines()
        text = lines[line - 1].strip()[:80] if line <= len(lines) else ""
        self.findings.append(Finding(what, self._cell + 1, line, text, package))


def _paired(target: ast.AST, value: ast.AST | None, name: str) -> Iterator[ast.AST | None]:
    """Yield the values that an assignment gives to `name`; `a, b = x, y` pairs them up."""
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple | ast.List):
        values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        for inner, given in zip(target.elts, values, strict=False):
            yield from _paired(inner, given, name)


def _text(node: ast.AST) -> str | None:
    """Return the constant string that an expression spells, also in pieces ("soft" + "max")."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else left + right
    return None


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _exists(module: str, name: str) -> bool:
    """Return whether `from module import *` binds the name; for packages other than torch, whether it may."""
    if module.split(".")[0] != "torch":
        return not hasattr(builtins, name)
    found: object = torch
    for part in module.split(".")[1:]:
        found = getattr(found, part, None)
    return hasattr(found, name)


def findings(
    notebook: Notebook, exercise: str, forbid: frozenset[str], allow: frozenset[str]
) -> list[Finding]:
    """Return the rules that the definition of an exercise breaks, nearest to the definition first."""
    if not forbid and not notebook.imported_roots - allow - sys.stdlib_module_names:
        return []
    search = Search(notebook, forbid, allow)
    try:
        search.follow(exercise)
    except RecursionError:
        return [Finding("code that is nested too deeply to be read", 1, 1, "")] if forbid else []
    return search.findings
