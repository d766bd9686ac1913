"""The class report: how scores spread, how each exercise went, and which mistakes were made how often."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.grading.store import write
from autograder.grading.verdicts import Verdict
from autograder.spec import Assignment


@dataclass(frozen=True)
class Report:
    """A class's outcome in one assignment. `verdicts` are by student, as `check --json` prints them."""

    assignment: Assignment
    verdicts: dict[str, dict[str, Any]]

    @property
    def scores(self) -> dict[str, float]:
        """The score of every student."""
        return {student: verdict["score"] for student, verdict in self.verdicts.items()}

    @property
    def mean(self) -> float:
        """The mean score; 0 for an empty class."""
        return sum(self.scores.values()) / len(self.scores) if self.scores else 0.0

    @property
    def median(self) -> float:
        """The median score; 0 for an empty class."""
        ranked = sorted(self.scores.values())
        middle = len(ranked) // 2
        return (
            0.0
            if not ranked
            else ranked[middle]
            if len(ranked) % 2
            else (ranked[middle - 1] + ranked[middle]) / 2
        )

    @property
    def distribution(self) -> list[tuple[str, int]]:
        """Students in each tenth of the points, full marks apart: [("0-9 %", 2), ..., ("100 %", 7)]."""
        tenths = Counter(min(int(10 * score / self.assignment.points), 10) for score in self.scores.values())
        names = [f"{10 * tenth}-{10 * tenth + 9} %" for tenth in range(10)] + ["100 %"]
        return [(name, tenths[tenth]) for tenth, name in enumerate(names)]

    @property
    def statuses(self) -> dict[str, Counter[str]]:
        """How many answers of each exercise ended in each status."""
        found: dict[str, Counter[str]] = {exercise.name: Counter() for exercise in self.assignment.exercises}
        for verdict in self.verdicts.values():
            for name, result in verdict["exercises"].items():
                found.setdefault(name, Counter())[result["status"]] += 1
        return found

    @property
    def mistakes(self) -> list[tuple[int, str, str]]:
        """Recognised mistakes as (how many made it, exercise, what they did), the most common first."""
        made: Counter[tuple[str, str]] = Counter()
        for verdict in self.verdicts.values():
            made.update(
                (name, result["mistake"])
                for name, result in verdict["exercises"].items()
                if result["mistake"]
            )
        order = [exercise.name for exercise in self.assignment.exercises]
        ranked = sorted(made.items(), key=lambda item: (-item[1], order.index(item[0][0]), item[0][1]))
        return [(count, exercise, mistake) for (exercise, mistake), count in ranked]

    @property
    def headline(self) -> str:
        """The report in one sentence, such as "7 of 24 flattened channel first (patchify)"."""
        total = len(self.verdicts)
        if not total:
            return "nothing has been graded yet"
        if not self.mistakes:
            full = sum(score == self.assignment.points for score in self.scores.values())
            return f"{full} of {total} have full marks; no known mistake was made"
        count, exercise, mistake = self.mistakes[0]
        return f"{count} of {total} {mistake} ({exercise})"


def keep(own: Path, assignment: str, verdicts: Mapping[str, Verdict], there: Collection[str]) -> None:
    """Keep verdicts by student for the report. Those of students not graded now stay if still `there`."""
    kept = {
        student: verdict for student, verdict in kept_verdicts(own, assignment).items() if student in there
    }
    kept |= {student: {**verdict.to_json(), "notes": verdict.notes} for student, verdict in verdicts.items()}
    write(own / f"{assignment}.json", json.dumps(dict(sorted(kept.items())), indent=1))


def kept_verdicts(own: Path, assignment: str) -> dict[str, dict[str, Any]]:
    """Return the last verdict of every student, as `check --json` prints them; empty before a first run."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(
            (own / f"{assignment}.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return {}
    return found
