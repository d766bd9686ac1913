"""From a submission to a verdict: run the cells in the sandbox, then probe and judge each exercise."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autograder.grading import gpu, judging, reasons
from autograder.grading.demonstrations import idle
from autograder.grading.expected import Expected
from autograder.grading.judging import Result
from autograder.grading.names import Notebook
from autograder.grading.rules import findings
from autograder.grading.sanitise import Outputs
from autograder.grading.submission import Submission
from autograder.sandbox import CellResult, Sandbox, Session
from autograder.spec import Assignment, Exercise


@dataclass(frozen=True)
class Verdict:
    """The outcome of one submission: a result an exercise, what the student's cells printed, and remarks."""

    file: str
    assignment: str
    exercises: dict[str, Result]
    cells: list[CellResult] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    student_seconds: float = 0.0

    @property
    def score(self) -> float:
        """The points of all exercises."""
        return sum(result.points for result in self.exercises.values())

    @property
    def max_score(self) -> float:
        """The most points that the assignment pays."""
        return sum(result.max_points for result in self.exercises.values())

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as `autograder check --json` prints it."""
        return {
            "file": self.file,
            "assignment": self.assignment,
            "score": self.score,
            "max_score": self.max_score,
            "exercises": {name: asdict(result) for name, result in self.exercises.items()},
        }


class Grader:
    """Grades submissions of one assignment. One serves all threads; each thread brings its own sandbox."""

    def __init__(
        self, assignment: Assignment, secret: bytes, demonstrations: frozenset[str] = frozenset()
    ) -> None:
        """`demonstrations` are sources of cells that need not run unless the student's own cells use them."""
        self.assignment = assignment
        self._demonstrations = demonstrations
        self._expected = [Expected.of(each, assignment.name, secret) for each in assignment.exercises]
        self._on_gpu = {
            each.name: gpu.OnGpu(each, assignment, secret)
            for each in assignment.exercises
            if gpu.points(each) and gpu.obstacle(each) is None
        }

    def grade(self, submission: Submission, sandbox: Sandbox) -> Verdict:
        """Return the verdict on one submission."""
        left_out = idle(submission.code, self._demonstrations)
        code = ["" if number in left_out else cell for number, cell in enumerate(submission.code)]
        with sandbox.open(code) as session:
            outputs = Outputs()
            cells = [replace(cell, outputs=outputs.clean(cell.outputs)) for cell in session.cells]
            notebook = Notebook(submission.code, [cell.status == "ok" for cell in cells])
            results = {
                each.exercise.name: self._result(each, notebook, cells, session) for each in self._expected
            }
            seconds = session.student_seconds
        return Verdict(submission.file, self.assignment.name, results, cells, submission.notes, seconds)

    def can_complete(self, verdict: Verdict) -> bool:
        """Return whether this machine can do checks that the verdict waits for."""
        return any(
            each.status == "pending" and name in self._on_gpu for name, each in verdict.exercises.items()
        )

    def complete(self, submission: Submission, verdict: Verdict) -> Verdict:
        """Return the verdict with its pending checks done on this machine's GPU, and nothing else changed."""
        results = {
            name: self._on_gpu[name].complete(submission.code, each)
            if each.status == "pending" and name in self._on_gpu
            else each
            for name, each in verdict.exercises.items()
        }
        return replace(verdict, exercises=results)

    def unreadable(self, submission: Submission) -> Verdict:
        """Return the verdict on a submission that holds nothing to grade, with the reason."""
        message = reasons.sentence(submission.problem or "")
        results = {e.name: Result(0, e.points, submission.status, message) for e in self.assignment.exercises}
        return Verdict(submission.file, self.assignment.name, results, notes=submission.notes)

    def _result(
        self, expected: Expected, notebook: Notebook, cells: Sequence[CellResult], session: Session
    ) -> Result:
        exercise = expected.exercise
        status, message = "forbidden", self._forbidden(exercise, notebook)
        if message is None:
            reply = session.probe(exercise.name, expected.request, exercise.seconds)
            if reply.status == "ok":
                defined = bool(notebook.definitions(exercise.name))
                return gpu.waiting(judging.result(expected, reply.payload, defined), exercise)
            status, message = reasons.no_answer(exercise, reply, notebook, cells, self.assignment.allow)
        return Result(0, exercise.points, status, message)

    def _forbidden(self, exercise: Exercise, notebook: Notebook) -> str | None:
        """Return why the exercise's definition breaks a rule that can be seen without running it, or None."""
        found = findings(notebook, exercise.name, exercise.forbid, self.assignment.allow)
        if not found:
            return None
        if found[0].package:
            allowed = reasons.listed(self.assignment.allow)
            return (
                f"{exercise.name} uses the package {found[0]}, which is not allowed here. Allowed: {allowed}."
            )
        return f"{exercise.name} may not use {found[0]}. The exercise is about writing that yourself."
