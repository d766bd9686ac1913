"""Grades a class: submitted/*/<assignment>/ to verdicts, nbgrader's gradebook and autograded/."""

import datetime
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from nbgrader.utils import parse_utc

from autograder.grading import autograded, report
from autograder.grading.course import Course
from autograder.grading.demonstrations import demonstrations
from autograder.grading.gradebook import Entry, Gradebook, NotReleased
from autograder.grading.pool import Pool
from autograder.grading.secret import secret
from autograder.grading.store import Store, write
from autograder.grading.submission import find
from autograder.grading.verdicts import Grader, Verdict
from autograder.sandbox import Sandbox, Unavailable
from autograder.spec import Assignment

TIMESTAMP = "timestamp.txt"


@dataclass
class Outcome:
    """What became of a class: verdicts by student, faults of the grader itself, and how much was stored."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    stored: int = 0


@dataclass(frozen=True)
class _Done:
    verdict: Verdict
    stored: bool
    entry: Entry


def grade(
    course: Course,
    assignment: Assignment,
    start: Callable[[], AbstractContextManager[Sandbox]],
    workers: int,
    force: bool = False,
    only: Collection[str] = (),
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Grade every submission of an assignment and return the outcome.

    `start` makes a sandbox; `only` names students; `step` is called with the number of submissions done and
    of all. Raises NotReleased when the gradebook does not know the assignment, Unavailable without a sandbox.
    """
    students = [student for student in course.students(assignment.name) if not only or student in only]
    key = secret(course.root)
    store = Store(course.own / "verdicts", assignment.name, key)
    outcome = Outcome()
    with course.only_writer(), Gradebook(course, assignment.name) as book:
        _same_points(book, assignment)
        release = Path(course.directory.root) / course.directory.release_directory
        shown = demonstrations(release / assignment.name / f"{assignment.name}.ipynb")
        grader = Grader(assignment, key, shown)

        def work(student: str) -> _Done:
            """Read, grade and write out one submission; runs in a worker."""
            submission = find(
                course.folder(course.directory.submitted_directory, student, assignment.name), assignment.name
            )
            verdict, stored = pool.grade(submission)
            text = autograded.notebook(submission, verdict, book.cells, book.kernelspec)
            moment = _moment(submission.timestamp)
            timestamp = submission.timestamp if moment else None
            target = course.folder(course.directory.autograded_directory, student, assignment.name)
            changed = _written(
                target, f"{assignment.name}.ipynb", text, timestamp, course.directory.groupshared
            )
            comments = autograded.comments(submission, book.cells)
            return _Done(
                verdict,
                stored,
                Entry(
                    student,
                    moment,
                    autograded.scores(submission, verdict, book.cells),
                    comments,
                    changed,
                    autograded.waiting(verdict),
                ),
            )

        with Pool(grader, workers, start, store, force) as pool:
            for number, (student, future) in enumerate(pool.each(work, students), 1):
                try:
                    done = future.result()
                    book.add(done.entry)
                    outcome.verdicts[student] = replace(done.verdict, cells=[])  # a class's outputs are large
                    outcome.stored += done.stored
                except Unavailable:
                    raise
                except Exception as error:  # a fault of the grader costs one submission, not the batch
                    outcome.failures[student] = f"{type(error).__name__}: {error}"
                step(number, len(students))
    there = set(course.students(assignment.name))
    report.keep(course.own, assignment.name, outcome.verdicts, there)
    return outcome


def _same_points(book: Gradebook, assignment: Assignment) -> None:
    for exercise in assignment.exercises:
        cell = book.cells.get(autograded.CHECK + exercise.name)
        points = cell.metadata["points"] if cell else None
        if points != exercise.points:
            raise NotReleased(
                f"the gradebook has {points} points for {exercise.name}, the specification"
                f" {exercise.points:g}; run: autograder release {assignment.name}"
            )


def _moment(text: str | None) -> datetime.datetime | None:
    """Return the moment in UTC that a timestamp gives, or None where it gives none."""
    try:
        moment: datetime.datetime | None = parse_utc(text) if text else None
        return moment
    except (ValueError, OverflowError, TypeError, AttributeError):
        return None


def _written(folder: Path, name: str, text: str, timestamp: str | None, shared: bool) -> bool:
    """Write the autograded notebook and its timestamp; return whether the notebook changed."""
    mode = 0o664 if shared else 0o444
    path = folder / name
    try:
        same = path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        same = False
    if not same:
        write(path, text, mode)
    if timestamp is not None:
        write(folder / TIMESTAMP, timestamp, mode)
    else:
        (folder / TIMESTAMP).unlink(missing_ok=True)
    return not same
