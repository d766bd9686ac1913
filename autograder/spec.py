"""The vocabulary of a specification: Assignment, Exercise, Group, Mistake.

One specification drives the check at home, the hidden check, the hint for a known mistake, the class report
and the mutation table. `autograder/specs/<assignment>.py` holds one `ASSIGNMENT` each.
"""

import ast
import hashlib
import hmac
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from autograder import judge, probes
from autograder.specs import ORDER

ALLOWED = frozenset(
    {"torch", "numpy", "matplotlib", "einops", "jaxtyping", "IPython", "ipywidgets", "PIL", "checks"}
)


class Draw:
    """Random inputs of one case, from a seed: the same seed gives the same inputs on every machine."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return a tensor of the given shape, normal with mean 0."""
        return (torch.randn(shape, generator=self._generator, dtype=torch.float64) * std).to(dtype)

    def integer(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def integers(self, *shape: int, high: int) -> torch.Tensor:
        """Return an int64 tensor of the given shape with values from 0 to high - 1."""
        return torch.randint(high, shape, generator=self._generator)

    def order(self, count: int) -> torch.Tensor:
        """Return the numbers from 0 to count - 1 in a random order."""
        return torch.randperm(count, generator=self._generator)


@dataclass(frozen=True)
class Group:
    """A group of cases that shows one behaviour; its points are paid when every case of it holds.

    `title` completes "your answer ...". Each of `inputs` draws the inputs of one case. `reread` says where
    the book explains the behaviour. `probe` defaults to the exercise's; `judge` to `judge.same`. With `gpu`
    its points stay pending until the group is checked on a GPU.
    """

    title: str
    points: float
    inputs: tuple[Callable[[Draw], probes.Inputs], ...]
    reread: str
    probe: Callable[..., probes.Outputs] | None = None
    judge: Callable[..., str | None] = judge.same
    gpu: bool = False


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer: its `code`, and a `hint` that teaches without giving the answer away."""

    name: str
    code: str
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One function or class that students write.

    `reference` is the right answer. `cases` go from fundamental to subtle: when the first group does not hold
    nothing is paid, since later groups build on it. `forbid` names what its definition may not call, as
    dotted names ("torch.nn.functional.softmax"; a name under torch.Tensor is also a method), and
    `operators` the names by which torch runs it ("_softmax"). `picture` draws inputs, expected and given
    result of a failing case at home. `trains` says that its cases train a model. They are judged by what
    training achieves, so neither the reference nor a known mistake is run to compare with.
    """

    name: str
    points: float
    reference: Callable[..., Any]
    cases: tuple[Group, ...]
    mistakes: tuple[Mistake, ...]
    minutes: int
    difficulty: int
    importance: int
    probe: Callable[..., probes.Outputs] = probes.value
    forbid: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    picture: Callable[..., Any] | None = None
    seconds: float = 10.0
    trains: bool = False

    def __post_init__(self) -> None:
        total = sum(group.points for group in self.cases)
        if total != self.points:
            raise ValueError(f"{self.name}: the groups' points add up to {total}, points is {self.points}")

    def drawn(self, secret: bytes, assignment: str, gpu: bool = False) -> list["Case"]:
        """Return every case with its inputs drawn from the secret, the exercise and the case's number.

        With `gpu` these are the cases that need one, otherwise all others.
        """
        cases: list[Case] = []
        numbered = enumerate((group, make) for group in self.cases for make in group.inputs)
        for number, (group, make) in numbered:
            if group.gpu == gpu:
                label = f"{assignment}/{self.name}/{number}".encode()
                seed = int.from_bytes(hmac.digest(secret, label, hashlib.sha256)[:7], "big")
                cases.append(Case(group, group.probe or self.probe, make(Draw(seed))))
        return cases


@dataclass(frozen=True)
class Case:
    """One case of a group with its inputs drawn. What is under `_kept` in them is for the judge alone."""

    group: Group
    probe: Callable[..., probes.Outputs]
    inputs: probes.Inputs

    @property
    def sent(self) -> probes.Inputs:
        """The inputs that the probe gets, in the sandbox too."""
        return {name: value for name, value in self.inputs.items() if name != "_kept"}

    def outputs(self, answer: Callable[..., Any]) -> probes.Outputs:
        """Return what the probe gives for an answer that is trusted, here in this process."""
        return probes.observe(self.probe, answer, self.sent)


@dataclass(frozen=True)
class Assignment:
    """The exercises of one assignment, in the order in which students meet them.

    `allow` names the packages that student code may import, besides Python's standard library.
    """

    name: str
    title: str
    chapter: str
    exercises: tuple[Exercise, ...]
    allow: frozenset[str] = field(default=ALLOWED)

    @property
    def points(self) -> float:
        """The most points that the assignment pays."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def minutes(self) -> int:
        """An honest estimate of the time that a student needs, in minutes."""
        return sum(exercise.minutes for exercise in self.exercises)


def names() -> list[str]:
    """Return the names of all assignments, in the order of the book."""
    return list(ORDER)


def load(name: str) -> Assignment:
    """Return the assignment of that name. Raises ValueError with the known names for another one."""
    if name not in names():
        raise ValueError(f"no assignment is called {name!r}; there are: {', '.join(names())}")
    assignment: Assignment = importlib.import_module(f"autograder.specs.{name}").ASSIGNMENT
    return assignment


def edited(reference: Callable[..., Any], *edits: tuple[str, str]) -> str:
    """Return the source of `reference` with each `(old, new)` replaced: the usual way to write a mistake.

    Annotations and docstrings are left out, so that the code runs in a student's notebook. Raises ValueError
    when `old` does not occur, so that a mistake cannot silently turn into the right answer.
    """
    source = textwrap.dedent(inspect.getsource(reference))
    for old, new in edits:
        if old not in source:
            raise ValueError(f"{reference.__name__}: {old!r} does not occur in its source")
        source = source.replace(old, new)
    return ast.unparse(_Bare().visit(ast.parse(source)))


class _Bare(ast.NodeTransformer):
    """Takes annotations and docstrings away."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)


def define(code: str, like: Callable[..., Any]) -> Any:
    """Run trusted `code` (a mistake, an answer) beside the definitions of the reference `like`'s module.

    Returns the object that carries the reference's name.
    """
    scope = dict(vars(sys.modules[like.__module__]))
    exec(compile(code, f"<{like.__name__}>", "exec"), scope)
    return scope[like.__name__]
