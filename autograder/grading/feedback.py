"""Feedback pages, by nbgrader's own converter."""

import logging
from pathlib import Path

from nbgrader.converters import GenerateFeedback
from nbgrader.converters.base import NbGraderException

from autograder.grading.course import Course


def generate(course: Course, assignment: str, student: str = "*") -> tuple[list[Path], str | None]:
    """Write feedback/<student>/<assignment>/ and return the pages, and what went wrong, if anything did."""
    course.directory.assignment_id = assignment
    course.directory.student_id = student
    config = course.config.copy()
    config.GenerateFeedback.force = True  # pages must show the last grading
    converter = GenerateFeedback(coursedir=course.directory, config=config)
    log = logging.Logger("nbgrader")
    problems = _Kept()
    log.addHandler(problems)
    converter.log = log
    problem = None
    try:
        converter.start()
    except NbGraderException as error:
        problem = "; ".join(problems.lines) or str(error)
    pattern = course.folder(course.directory.feedback_directory, student, assignment)
    pages = sorted(course.root.glob(str(pattern.relative_to(course.root)) + f"/{assignment}.html"))
    return pages, problem


class _Kept(logging.Handler):
    """Keeps the last line of each error that nbgrader logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.lines.append(record.getMessage().strip().splitlines()[-1])
