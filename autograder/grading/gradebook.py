"""Writes verdicts into nbgrader's gradebook: one process, few transactions, nbgrader's own tables.

What a person entered stays: manual points, extra credit, comments, extensions.
"""

import contextlib
import datetime
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any

from nbgrader import api
from nbgrader.preprocessors import AssignLatePenalties
from sqlalchemy import bindparam, insert, make_url, select, update

from autograder.grading.course import Course

BATCH = 200  # submissions to a transaction


class NotReleased(ValueError):
    """The gradebook does not know the assignment as the specification describes it."""


@dataclass(frozen=True)
class SourceCell:
    """A cell of the released notebook; `metadata` is what nbgrader keeps about it in a notebook."""

    name: str
    kind: str
    source: str
    metadata: dict[str, Any]

    @property
    def locked(self) -> bool:
        """Whether the released source replaces the student's."""
        return bool(self.metadata["locked"])

    @property
    def manual(self) -> bool:
        """Whether a person grades it."""
        return bool(self.metadata["task"] or (self.metadata["grade"] and self.metadata["solution"]))


@dataclass(frozen=True)
class Entry:
    """What the gradebook gets for one student.

    `scores` and `comments` are by cell name. A score of None leaves the cell to a person; cells `waiting` for
    a GPU show as needing grading too. `changed` says whether the student's work or its outcome differs from
    what was there before.
    """

    student: str
    timestamp: datetime.datetime | None
    scores: dict[str, float | None]
    comments: dict[str, str | None]
    changed: bool = True
    waiting: frozenset[str] = frozenset()


class Gradebook:
    """nbgrader's gradebook, opened for one assignment. A context manager; leaving it writes what waits."""

    def __init__(self, course: Course, assignment: str) -> None:
        directory = course.directory
        _must_exist(directory.db_url, assignment)
        self._nbgrader = api.Gradebook(directory.db_url, directory.course_id or "default_course")
        self._db = self._nbgrader.db
        self._create_students = course.config.Autograde.get("create_student", True)
        self._penalties = AssignLatePenalties(config=course.config)
        self._penalties.log = logging.getLogger("autograder.late")
        self._penalties.init_plugin()
        self._pending: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self._changes: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self._waiting = 0
        self._read_assignment(assignment)
        self._read_submissions()

    def __enter__(self) -> "Gradebook":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.closing(self._nbgrader):
            self.flush()

    def _read_assignment(self, name: str) -> None:
        try:
            self._assignment = self._nbgrader.find_assignment(name)
            notebook = self._nbgrader.find_notebook(name, name)
        except api.MissingEntry:
            self._nbgrader.close()
            raise NotReleased(
                f"the gradebook has no assignment {name}; first run: autograder release {name}"
            ) from None
        self.kernelspec: str | None = notebook.kernelspec
        self._duedate = self._assignment.duedate
        self._notebook_id = notebook.id
        self._notebooks: dict[str, dict[str, list[str]]] = {}  # ids of cells by notebook and table
        self._cells: dict[str, str] = {}  # ids of graded cells by name
        self._solutions: dict[str, str] = {}
        cells = {}
        for each in self._assignment.notebooks:
            graded = [*each.grade_cells, *each.task_cells]
            commented = [*each.solution_cells, *each.task_cells]
            self._notebooks[each.id] = {
                "grades": [c.id for c in graded],
                "comments": [c.id for c in commented],
            }
            if each.id == notebook.id:
                self._cells = {cell.name: cell.id for cell in graded}
                self._solutions = {cell.name: cell.id for cell in commented}
                points = {cell.name: cell.max_score for cell in graded}
                tasks = {cell.name for cell in each.task_cells}
                solutions = {cell.name for cell in each.solution_cells}
                for source in each.source_cells:
                    metadata = {
                        "schema_version": 3,
                        "grade_id": source.name,
                        "grade": source.name in points and source.name not in tasks,
                        "solution": source.name in solutions,
                        "task": source.name in tasks,
                        "locked": source.locked,
                        "checksum": source.checksum,
                        "cell_type": source.cell_type,
                    }
                    if source.name in points:
                        metadata["points"] = points[source.name]
                    cells[source.name] = SourceCell(
                        source.name, source.cell_type, source.source or "", metadata
                    )
        self.cells: dict[str, SourceCell] = cells
        self._assignment_id = self._assignment.id

    def _read_submissions(self) -> None:
        work, book, grade, note = api.SubmittedAssignment, api.SubmittedNotebook, api.Grade, api.Comment
        mine = work.assignment_id == self._assignment_id
        rows = self._db.execute(select(work.student_id, work.id, work.timestamp, work.extension).where(mine))
        self._work = {row.student_id: row for row in rows}
        rows = self._db.execute(
            select(book.assignment_id, book.id, book.late_submission_penalty)
            .join(work, work.id == book.assignment_id)
            .where(mine, book.notebook_id == self._notebook_id)
        )
        self._books = {row.assignment_id: row for row in rows}
        fields = (
            grade.id,
            grade.cell_id,
            grade.notebook_id,
            grade.auto_score,
            grade.manual_score,
            grade.extra_credit,
            grade.needs_manual_grade,
        )
        belongs = (book.notebook_id == self._notebook_id, mine)
        joined = (
            select(*fields).join(book, book.id == grade.notebook_id).join(work, work.id == book.assignment_id)
        )
        self._grades = {
            (row.notebook_id, row.cell_id): row for row in self._db.execute(joined.where(*belongs))
        }
        noted = select(note.id, note.cell_id, note.notebook_id, note.auto_comment).join(
            book, book.id == note.notebook_id
        )
        rows = self._db.execute(noted.join(work, work.id == book.assignment_id).where(*belongs))
        self._comments = {(row.notebook_id, row.cell_id): row for row in rows}
        self._students = set(self._db.scalars(select(api.Student.id)))
        self._db.commit()

    def known(self, student: str) -> bool:
        """Return whether the gradebook has a submission of the student."""
        return student in self._work

    def add(self, entry: Entry) -> None:
        """Take one student's outcome; the next flush writes it. Raises ValueError for an unknown student."""
        if entry.student not in self._students:
            if len(entry.student) > 128 or not entry.student.isprintable():
                raise ValueError("the folder's name cannot be a student's id")
            if not self._create_students:
                raise ValueError(
                    f"the gradebook has no student {entry.student!r}, and nbgrader's create_student is off"
                )
            self._pending[api.Student].append({"id": entry.student})
            self._students.add(entry.student)
        work = self._work.get(entry.student)
        if work is None:
            work = self._new_submission(entry)
        elif entry.timestamp is not None and entry.timestamp != work.timestamp:
            self._changes[api.SubmittedAssignment].append({"_id": work.id, "timestamp": entry.timestamp})
        notebook = self._books[work.id]
        score = sum(self._scores(entry, notebook.id))
        for name, comment in entry.comments.items():
            row = self._comments.get((notebook.id, self._solutions.get(name, "")))
            if row and row.auto_comment != comment:
                self._changes[api.Comment].append({"_id": row.id, "auto_comment": comment})
        penalty = self._penalty(entry, work, score)
        if penalty != notebook.late_submission_penalty:
            self._changes[api.SubmittedNotebook].append(
                {"_id": notebook.id, "late_submission_penalty": penalty}
            )
        self._waiting += 1
        if self._waiting >= BATCH:
            self.flush()

    def _scores(self, entry: Entry, notebook: str) -> Iterator[float]:
        """Queue the scores that differ from the gradebook's, and yield what counts of each cell."""
        for name, cell in self._cells.items():
            row, auto = self._grades[notebook, cell], entry.scores.get(name)
            by_hand = row.manual_score is not None
            fresh = entry.changed or auto != row.auto_score
            open_ = by_hand or auto is None or name in entry.waiting
            review = open_ if fresh else row.needs_manual_grade
            if auto != row.auto_score or review != row.needs_manual_grade:
                self._changes[api.Grade].append(
                    {"_id": row.id, "auto_score": auto, "needs_manual_grade": review}
                )
            yield (row.manual_score if by_hand else auto or 0.0) + (row.extra_credit or 0.0)

    def _new_submission(self, entry: Entry) -> Any:
        """Queue the rows of a first submission, as nbgrader's add_submission makes them."""
        work = SimpleNamespace(
            id=api.new_uuid(), timestamp=entry.timestamp, extension=None, student_id=entry.student
        )
        self._pending[api.SubmittedAssignment].append(
            {
                "id": work.id,
                "assignment_id": self._assignment_id,
                "student_id": entry.student,
                "timestamp": entry.timestamp,
            }
        )
        self._work[entry.student] = work
        for source, cells in self._notebooks.items():
            book = SimpleNamespace(id=api.new_uuid(), assignment_id=work.id, late_submission_penalty=None)
            self._pending[api.SubmittedNotebook].append(
                {"id": book.id, "assignment_id": work.id, "notebook_id": source}
            )
            for cell in cells["grades"]:
                blank = {
                    "auto_score": None,
                    "manual_score": None,
                    "extra_credit": None,
                    "needs_manual_grade": True,
                }
                row = {"id": api.new_uuid(), "cell_id": cell, "notebook_id": book.id, **blank}
                self._pending[api.Grade].append(row)
                self._grades[book.id, cell] = SimpleNamespace(**row)
            for cell in cells["comments"]:
                row = {"id": api.new_uuid(), "cell_id": cell, "notebook_id": book.id, "auto_comment": None}
                self._pending[api.Comment].append(row)
                self._comments[book.id, cell] = SimpleNamespace(**row)
            if source == self._notebook_id:
                self._books[work.id] = book
        return work

    def _penalty(self, entry: Entry, work: Any, score: float) -> float | None:
        """Return the late penalty that nbgrader's configured plugin gives."""
        timestamp = entry.timestamp or work.timestamp
        if timestamp is None or self._duedate is None:
            return None
        due = self._duedate + (work.extension or datetime.timedelta())
        late = (timestamp - due).total_seconds()
        if late <= 0:
            return None
        penalty = self._penalties.plugin_inst.late_submission_penalty(entry.student, score, late)
        return (
            None
            if penalty is None
            else float(self._penalties._check_late_penalty(SimpleNamespace(score=score), penalty))
        )

    def flush(self) -> None:
        """Write what is waiting, in one transaction."""
        order = (api.Student, api.SubmittedAssignment, api.SubmittedNotebook, api.Grade, api.Comment)
        try:
            for model in order:
                if self._pending[model]:
                    self._db.execute(insert(model.__table__), self._pending[model])
            for model in order:
                for fields, rows in _alike(self._changes[model]).items():
                    table = model.__table__
                    values: dict[str, Any] = {field: bindparam(f"new_{field}") for field in fields}
                    renamed = [
                        {"_id": row["_id"], **{f"new_{field}": row[field] for field in fields}}
                        for row in rows
                    ]
                    self._db.execute(
                        update(table).where(table.c.id == bindparam("_id")).values(values), renamed
                    )
            self._db.commit()
        except BaseException:
            self._db.rollback()
            raise
        finally:
            self._pending.clear()
            self._changes.clear()
            self._waiting = 0


def _must_exist(url: str, assignment: str) -> None:
    """Refuse a database file that is not there: nbgrader would make an empty one."""
    database = make_url(url)
    if (
        database.get_backend_name() == "sqlite"
        and database.database
        and not os.path.exists(database.database)
    ):
        raise NotReleased(f"there is no gradebook yet; first run: autograder release {assignment}")


def _alike(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Group rows by the fields that they change."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(field for field in row if field != "_id")].append(row)
    return groups
