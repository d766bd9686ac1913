"""Words for an exercise that gave no answer; errors of cells are shown, as they came before any probe."""

from collections.abc import Sequence

from autograder.grading.names import Notebook
from autograder.sandbox import CellResult, Reply
from autograder.spec import Exercise


def no_answer(
    exercise: Exercise, reply: Reply, notebook: Notebook, cells: Sequence[CellResult], allow: frozenset[str]
) -> tuple[str, str]:
    """Return the status and the message of an exercise whose probes did not answer."""
    name = exercise.name
    if reply.status == "timeout":
        return (
            "timeout",
            f"{name} did not finish in {exercise.seconds:g} seconds. Is there a loop that never ends?",
        )
    if reply.status == "crashed":
        return "crashed", f"{name} ended the Python process that ran it."
    number = _stopped(name, notebook, cells)
    if number is None:
        return "missing", f"There is no {name} in what was handed in."
    cell, what = cells[number], f"Code cell {number + 1}, which defines {name},"
    if cell.status == "timeout":
        return "timeout", f"{what} did not finish in time."
    if cell.status == "crashed":
        return "crashed", f"{what} ended the Python process."
    if cell.status == "skipped":
        return "error", f"{what} did not run: the time or the restarts for this notebook were used up before."
    error = str(cell.error)[:300]
    allowed = f" These packages can be used: {listed(allow)}." if "ModuleNotFoundError" in error else ""
    return "error", f"{what} stopped with {sentence(error)}{allowed}"


def _stopped(name: str, notebook: Notebook, cells: Sequence[CellResult]) -> int | None:
    """Return the number of the cell that defines a name and did not run to its end, or None."""
    for statement in notebook.definitions(name):
        if cells[statement.cell].status != "ok":
            return statement.cell
    for number, (cell, source) in enumerate(zip(cells, notebook.sources, strict=True)):
        broken = cell.status == "error" and "SyntaxError" in str(cell.error)
        if broken and any(f"{kind} {name}" in source for kind in ("def", "class")):
            return number
    return None


def listed(packages: frozenset[str]) -> str:
    """Return the packages that students may import, in words."""
    return ", ".join(sorted(packages - {"checks"}, key=str.lower)) + " and Python's standard library"


def sentence(text: str) -> str:
    """Return the text with a full stop at its end, if it has none."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
