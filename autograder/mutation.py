"""The course's own mutation score: are all known mistakes caught, and all right answers accepted?

Runs trusted code (mistakes of the specs, right answers of `tests/answers/`) in this process, judged exactly
as hidden cases and home checks are.
"""

import argparse
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from autograder import probes, spec
from autograder.spec import Assignment, Case, Exercise

ANSWERS = Path(__file__).parent.parent / "tests" / "answers"
SECRETS = {"at home": b"public", "hidden": b"the secret that make mutation uses"}


@dataclass(frozen=True)
class Row:
    """One exercise: mistakes caught of all, right answers accepted of all, and which slipped."""

    assignment: str
    exercise: str
    caught: int
    mistakes: int
    accepted: int
    right: int
    slipped: tuple[str, ...]


@lru_cache(maxsize=8)
def expected(exercise: Exercise, assignment: str, secret: bytes) -> list[tuple[Case, probes.Outputs]]:
    """Return every case of an exercise with what the reference gives for it."""
    cases = exercise.drawn(secret, assignment)
    return [(case, {} if exercise.trains else case.outputs(exercise.reference)) for case in cases]


def problems(exercise: Exercise, assignment: str, secret: bytes, answer: Callable[..., Any]) -> Iterator[str]:
    """Yield what is wrong with an answer, case by case, in the words that a student sees."""
    for case, right in expected(exercise, assignment, secret):
        problem = case.group.judge(case.outputs(answer), right, case.inputs)
        if problem:
            yield f"{case.group.title}: {problem}"


def answers(assignment: Assignment, exercise: Exercise) -> dict[str, Callable[..., Any]]:
    """Return the right answers of an exercise by style, from `tests/answers/<assignment>/<style>.py`."""
    found = {}
    for path in sorted((ANSWERS / assignment.name).glob("*.py")):
        scope: dict[str, Any] = {"__name__": path.stem}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        if exercise.name in scope:
            found[path.stem] = scope[exercise.name]
    return found


def measure(assignment: Assignment, exercise: Exercise) -> Row:
    """Run all mistakes and right answers of one exercise against home and hidden cases."""

    def first_problem(answer: Callable[..., Any]) -> dict[str, str | None]:
        return {
            where: next(problems(exercise, assignment.name, secret, answer), None)
            for where, secret in SECRETS.items()
        }

    slipped = []
    for mistake in exercise.mistakes:
        found = first_problem(spec.define(mistake.code, exercise.reference))
        slipped += [f"{mistake.name} (not caught {where})" for where, problem in found.items() if not problem]
    missed = {entry.split(" (not")[0] for entry in slipped}
    right = answers(assignment, exercise)
    rejected = [
        f"{style} (rejected {where}: {problem})"
        for style, answer in right.items()
        for where, problem in first_problem(answer).items()
        if problem
    ]
    refused = {entry.split(" (rejected")[0] for entry in rejected}
    return Row(
        assignment.name,
        exercise.name,
        len(exercise.mistakes) - len(missed),
        len(exercise.mistakes),
        len(right) - len(refused),
        len(right),
        tuple(slipped + rejected),
    )


def table(assignments: list[str] | None = None) -> list[Row]:
    """Return a row for every exercise of the given assignments (default: all).

    Without a choice, exercises that train are left out: `make calibrate` measures those over many seeds.
    """
    loaded = [spec.load(name) for name in assignments or spec.names()]
    return [
        measure(assignment, exercise)
        for assignment in loaded
        for exercise in assignment.exercises
        if assignments or not exercise.trains
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the table; return 1 when a mistake slips or a right answer is rejected."""
    parser = argparse.ArgumentParser(
        prog="autograder mutation", description=inspect.getdoc(inspect.getmodule(main))
    )
    parser.add_argument("assignment", nargs="*", help="only these assignments (default: all)")
    rows = table(parser.parse_args(argv).assignment)
    print(f"{'assignment':20} {'exercise':32} {'mistakes caught':>16} {'right answers accepted':>24}")
    for row in rows:
        print(
            f"{row.assignment:20} {row.exercise:32} {row.caught:>9} of {row.mistakes:>3}"
            f" {row.accepted:>17} of {row.right:>3}"
        )
        for entry in row.slipped:
            print(f"    {entry}")
    return int(any(row.slipped for row in rows))
