"""Makes the notebook in autograded/<student>/<assignment>/ that nbgrader's formgrader and feedback show."""

import html
import json
import re
from collections.abc import Mapping
from typing import Any

from nbformat import NotebookNode
from nbgrader.utils import compute_checksum

from autograder.grading.gradebook import SourceCell
from autograder.grading.judging import Result
from autograder.grading.sanitise import markdown, printable, text_only
from autograder.grading.submission import Cell, Submission
from autograder.grading.verdicts import Verdict

CHECK = "check-"  # an exercise's check cell is called check-<exercise>
STOPPED = {
    "timeout": "[This cell did not finish in time.]",
    "crashed": "[This cell ended the Python process.]",
    "skipped": "[This cell did not run.]",
}
Json = dict[str, Any]


def notebook(
    submission: Submission, verdict: Verdict, sources: Mapping[str, SourceCell], kernelspec: str | None
) -> str:
    """Return the autograded notebook as JSON text.

    The student's cells keep their order; check cells come back as released, exactly once each, with the
    points and the reason as their output.
    """
    last = {cell.grade_id: number for number, cell in enumerate(submission.cells)}
    made: list[Json] = []
    there: set[str] = set()
    results = iter(verdict.cells)
    for number, cell in enumerate(submission.cells):
        ran = next(results, None) if cell.kind == "code" else None
        source = sources.get(cell.grade_id or "") if last[cell.grade_id] == number else None
        if source is not None and source.locked:
            there.add(source.name)
            made.append(_released(source, verdict))
            continue
        made.append(_written(cell, source, ran))
        if source is not None:
            there.add(source.name)
    for name, source in sources.items():
        if source.locked and name not in there:
            made.insert(_place(made, name), _released(source, verdict))
    notes = [
        *verdict.notes,
        *([] if submission.problem is None else [f"There is nothing to grade: {submission.problem}."]),
    ]
    if notes:
        made.insert(
            0,
            _markdown(
                "**Notes from grading**\n\n" + "\n".join(f"- {text_only(printable(note))}" for note in notes)
            ),
        )
    for number, entry in enumerate(made):
        entry["id"] = f"cell-{number}"
    metadata = {
        "kernelspec": json.loads(kernelspec) if kernelspec else {},
        "language_info": {"name": "python"},
    }
    return json.dumps(
        {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5},
        indent=1,
        ensure_ascii=False,
    )


def scores(
    submission: Submission, verdict: Verdict, sources: Mapping[str, SourceCell]
) -> dict[str, float | None]:
    """Return the score of every graded cell by name; None where a person has to grade."""
    given: dict[str, float | None] = {}
    for name, source in sources.items():
        result = verdict.exercises.get(name.removeprefix(CHECK))
        if source.manual:
            given[name] = 0.0 if not source.metadata["task"] and _unanswered(submission, source) else None
        elif source.metadata["grade"]:
            given[name] = float(result.points) if result else 0.0
    return given


def waiting(verdict: Verdict) -> frozenset[str]:
    """Return the names of the check cells that have points waiting for a GPU."""
    return frozenset(CHECK + name for name, each in verdict.exercises.items() if each.status == "pending")


def comments(submission: Submission, sources: Mapping[str, SourceCell]) -> dict[str, str | None]:
    """Return nbgrader's own comment on every answer that is as it was released: "No response."."""
    answers = {name: source for name, source in sources.items() if source.metadata["solution"]}
    return {
        name: "No response." if _unanswered(submission, source) else None for name, source in answers.items()
    }


def _unanswered(submission: Submission, source: SourceCell) -> bool:
    found = [cell for cell in submission.cells if cell.grade_id == source.name]
    if not found:
        return True
    cell = NotebookNode(
        cell_type=source.kind,
        source=found[-1].source,
        metadata=NotebookNode(nbgrader=NotebookNode(source.metadata)),
    )
    return bool(compute_checksum(cell) == source.metadata["checksum"])


def _place(made: list[Json], name: str) -> int:
    """Return where a missing check cell belongs: behind its exercise's cell, else at the end."""
    for number, cell in enumerate(made):
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == name.removeprefix(CHECK):
            return number + 1
    return len(made)


def _written(cell: Cell, source: SourceCell | None, ran: Any) -> Json:
    """Return a cell that the student wrote."""
    metadata = {"nbgrader": source.metadata} if source else {}
    if (source.kind if source else cell.kind) == "markdown":
        text, images = markdown(cell)
        return _markdown(text, metadata) | ({"attachments": images} if images else {})
    outputs = list(ran.outputs) if ran else []
    if ran and ran.status in STOPPED:
        outputs.append({"output_type": "stream", "name": "stdout", "text": STOPPED[ran.status]})
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": outputs,
        "source": cell.source,
    }


def _released(source: SourceCell, verdict: Verdict) -> Json:
    """Return a locked cell as released, a check cell with its result."""
    metadata = {"deletable": False, "editable": False, "nbgrader": source.metadata}
    if source.kind == "markdown":
        return _markdown(source.source, metadata)
    result = verdict.exercises.get(source.name.removeprefix(CHECK))
    outputs = _shown(source.name.removeprefix(CHECK), result) if result and source.metadata["grade"] else []
    return {
        "cell_type": "code",
        "execution_count": 1 if outputs else None,
        "metadata": metadata,
        "outputs": outputs,
        "source": source.source,
    }


def _shown(exercise: str, result: Result) -> list[Json]:
    """Return the explanation, and the number that nbgrader reads."""
    head = f"{exercise}: {result.points:g} of {result.max_points:g} points ({result.status})"
    message = printable(result.message)
    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(message))
    data = {
        "text/plain": f"{head}\n{message}",
        "text/html": f"<strong>{html.escape(head)}.</strong> {marked}",
    }
    number = {"text/plain": f"{float(result.points)}"}
    return [
        {"output_type": "display_data", "data": data, "metadata": {}},
        {"output_type": "execute_result", "data": number, "metadata": {}, "execution_count": 1},
    ]


def _markdown(text: str, metadata: Json | None = None) -> Json:
    return {"cell_type": "markdown", "metadata": metadata or {}, "source": text}
