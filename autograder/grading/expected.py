"""What an exercise's hidden cases should give, and what each known mistake gives; computed once a process."""

import sys
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autograder import pack, probes
from autograder.judge import agrees
from autograder.release.assemble import assemble
from autograder.spec import Case, Exercise, Group, define

Outputs = dict[str, Any]
_ONE_AT_A_TIME = threading.Lock()  # probes start from a fixed random state, and torch has one for all threads


@dataclass(frozen=True)
class Expected:
    """The hidden cases of one exercise, the probes' own text, and the reference's outputs.

    These are the cases for any machine, or those that need a GPU.
    """

    exercise: Exercise
    cases: list[Case]
    outputs: list[Outputs]
    sources: str

    @property
    def groups(self) -> list[Group]:
        """The groups that these cases belong to, in order."""
        return list({id(case.group): case.group for case in self.cases}.values())

    def numbers(self, group: Group) -> list[int]:
        """Return the numbers of the cases of a group."""
        return [number for number, case in enumerate(self.cases) if case.group is group]

    @cached_property
    def request(self) -> bytes:
        """What the sandbox gets. Checks on a GPU ask case by case and never need it."""
        cases = [{"probe": case.probe.__name__, "inputs": case.sent} for case in self.cases]
        trace = bool(self.exercise.forbid or self.exercise.operators)
        return pack.pack({"sources": self.sources, "cases": cases, "trace": trace})

    @property
    def mistakes(self) -> dict[str, list[Outputs | None]]:
        """What each known mistake gives by case; None where it agrees with the reference."""
        with _ONE_AT_A_TIME:
            return self._mistakes

    @cached_property
    def _mistakes(self) -> dict[str, list[Outputs | None]]:
        found: dict[str, list[Outputs | None]] = {}
        for mistake in () if self.exercise.trains else self.exercise.mistakes:
            answer = define(mistake.code, like=self.exercise.reference)
            made = [_observed(case, answer) for case in self.cases]
            found[mistake.name] = [
                wrong if case.group.judge(wrong, right, case.inputs) or not agrees(wrong, right) else None
                for case, wrong, right in zip(self.cases, made, self.outputs, strict=True)
            ]
        return found

    @classmethod
    def of(cls, exercise: Exercise, assignment: str, secret: bytes, gpu: bool = False) -> "Expected":
        """Draw the cases from the secret and run the reference on them."""
        cases = exercise.drawn(secret, assignment, gpu)
        outputs = [{} if exercise.trains else _observed(case, exercise.reference) for case in cases]
        return cls(exercise, cases, outputs, _sources(cases))


def _observed(case: Case, answer: Any) -> Outputs:
    """Return what the probe gives, as it would come back from the sandbox."""
    outputs: Outputs = pack.unpack(pack.pack(case.outputs(answer)))
    return outputs


def _sources(cases: list[Case]) -> str:
    """Return the text of the probes that specifications define themselves, with what these use."""
    places = {(case.probe.__module__, case.probe.__name__) for case in cases}
    own = sorted(place for place in places if place[0] != probes.__name__)
    modules = {module: sys.modules[module] for module, _ in own}
    return assemble([probes, *modules.values()], own) if own else ""
