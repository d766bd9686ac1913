"""Verdicts for people and scripts: one line of JSON, a few lines of text, a table of a class."""

import json
import textwrap
from collections.abc import Mapping

from autograder.grading.sanitise import printable
from autograder.grading.verdicts import Verdict

MARKS = {"passed": "✓", "partial": "◐", "pending": "…"}


def one_line(verdict: Verdict) -> str:
    """Return the verdict as one line of JSON."""
    return json.dumps(verdict.to_json())


def as_text(verdict: Verdict) -> str:
    """Return the verdict for a terminal."""
    lines = [f"{verdict.file}: {verdict.score:g} of {verdict.max_score:g} points"]
    lines += [f"  note: {note}" for note in verdict.notes]
    width = max((len(name) for name in verdict.exercises), default=0)
    for name, result in verdict.exercises.items():
        points = f"{result.points:g}/{result.max_points:g}"
        lines.append(f"  {MARKS.get(result.status, '✗')} {name:{width}}  {points:>5}  {result.status}")
        if result.status != "passed":
            lines += textwrap.wrap(result.message, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return printable("\n".join(lines))


def class_table(verdicts: Mapping[str, Verdict]) -> str:
    """Return one line a student: the score, and the status of each exercise."""
    if not verdicts:
        return ""
    first = next(iter(verdicts.values()))
    wide = max(7, *(len(student) for student in verdicts))
    columns = {name: max(len(name), 9) for name in first.exercises}
    lines = [
        "  ".join([f"{'student':{wide}}", "points", *(f"{name:{width}}" for name, width in columns.items())])
    ]
    for student, verdict in sorted(verdicts.items()):
        states = (f"{verdict.exercises[name].status:{width}}" for name, width in columns.items())
        note = f"  ({verdict.notes[0]})" if verdict.notes else ""
        lines.append("  ".join([f"{student:{wide}}", f"{verdict.score:6g}", *states]).rstrip() + note)
    return printable("\n".join(lines)) + "\n"
