"""Reads a solution's source and makes the notebook that nbgrader releases.

A source is a Jupytext percent script. `# %% exercise="patchify"` marks the cell that a student fills in, with
the model answer between `### BEGIN SOLUTION` and `### END SOLUTION`. `# %% check="patchify"` marks its check
cell, whose single line is `check(patchify)`. Points come from the specification.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from autograder.spec import Assignment, Exercise

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
MAY_FAIL = "raises-exception"  # Run All goes on after such a cell
MARKS = ("exercise", "check")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def notebook(path: Path, assignment: Assignment) -> NotebookNode:
    """Return the source as a notebook with nbgrader's metadata.

    Raises ValueError with everything that is wrong with the source's marks, and FileNotFoundError.
    """
    cells = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent").cells
    problems = list(_problems(cells, assignment))
    if problems:
        raise ValueError("\n".join(f"{path.name}: {problem}" for problem in problems))
    exercises = {exercise.name: exercise for exercise in assignment.exercises}
    made: list[NotebookNode] = []
    for cell in cells:
        if "exercise" in cell.metadata:
            made.append(_facts(exercises[cell.metadata["exercise"]]))
        made.append(_cell(cell, exercises))
    if made and made[0].cell_type == "markdown":
        made[0].source += f"\n\n{_summary(assignment)}"
    for number, cell in enumerate(made):
        cell.id = cell.metadata.get("nbgrader", {}).get("grade_id") or _identity(cell, made[:number])
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=metadata)


def _problems(cells: list[NotebookNode], assignment: Assignment) -> Iterator[str]:
    """Yield what is wrong with the marks of a source, in words."""
    names = [exercise.name for exercise in assignment.exercises]
    seen: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        for mark in set(cell.metadata) - {*MARKS, "tags", "lines_to_next_cell"}:
            yield f'unknown cell mark {mark}="{cell.metadata[mark]}"; there are: {", ".join(MARKS)}'
        marks = [(mark, cell.metadata[mark]) for mark in MARKS if mark in cell.metadata]
        seen.update(marks)
        for mark, name in marks:
            if name not in names:
                yield f'{mark}="{name}": the specification has no such exercise; it has: {", ".join(names)}'
            elif cell.cell_type != "code":
                yield f'{mark}="{name}": stands on a text cell; put it on a code cell'
            elif mark == "check" and cell.source.strip() != f"check({name})":
                yield f'check="{name}": the cell must hold the single line check({name})'
            elif mark == "exercise":
                yield from _exercise_problems(name, cell.source)
        if len(marks) > 1:
            yield f'exercise="{marks[0][1]}" and check="{marks[1][1]}" stand on one cell; make it two'
        if (BEGIN in cell.source or END in cell.source) and "exercise" not in cell.metadata:
            yield f"a solution block stands outside the exercise cells: {cell.source.splitlines()[0]!r}"
    for name in names:
        for mark in MARKS:
            if seen[mark, name] != 1:
                yield f'{mark}="{name}": {seen[mark, name] or "no"} such cells; one is needed'


def _exercise_problems(name: str, source: str) -> Iterator[str]:
    lines = [line.strip() for line in source.splitlines()]
    fences = [line for line in lines if line in (BEGIN, END)]
    if not fences or fences != [BEGIN, END] * (len(fences) // 2):
        yield f'exercise="{name}": needs its model answer between {BEGIN} and {END}'
    try:
        defined = [getattr(node, "name", None) for node in ast.parse(source).body]
    except SyntaxError as error:
        yield f'exercise="{name}": is not Python: {error}'
        return
    if name not in defined:
        yield f'exercise="{name}": the cell does not define {name}'


def _cell(cell: NotebookNode, exercises: dict[str, Exercise]) -> NotebookNode:
    """Return a cell of the source as a cell of the notebook."""
    if cell.cell_type == "markdown":
        return nbformat.v4.new_markdown_cell(cell.source)
    made = nbformat.v4.new_code_cell(cell.source)
    tags = list(cell.metadata.get("tags", []))
    if "exercise" in cell.metadata:
        made.metadata["nbgrader"] = _mark(cell.metadata["exercise"], solution=True)
    elif "check" in cell.metadata:
        name = cell.metadata["check"]
        points = exercises[name].points
        made.metadata["nbgrader"] = _mark(f"check-{name}", grade=True, locked=True, points=points)
        tags.append(MAY_FAIL)
    elif any(isinstance(node, ast.Name) and node.id in exercises for node in _walk(cell.source)):
        tags.append(MAY_FAIL)
    if tags:
        made.metadata["tags"] = tags
    return made


def _walk(source: str) -> Iterator[ast.AST]:
    """Yield the syntax of a cell; nothing for what only IPython understands, such as `%time`."""
    try:
        yield from ast.walk(ast.parse(source))
    except SyntaxError:
        return


def _mark(grade_id: str, **flags: Any) -> dict[str, Any]:
    plain = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
    return {**plain, "grade_id": grade_id, **flags}


def _facts(exercise: Exercise) -> NotebookNode:
    """Return the line above an exercise, from the specification."""
    pay = f"{_count(exercise.points, 'point')} · about {_count(exercise.minutes, 'minute')}"
    rank = f"difficulty {exercise.difficulty} of 5 · importance {exercise.importance} of 5"
    return nbformat.v4.new_markdown_cell(f"**Exercise** `{exercise.name}` · {pay} · {rank}")


def _summary(assignment: Assignment) -> str:
    parts = [_count(len(assignment.exercises), "exercise"), _count(assignment.points, "point")]
    return f"{' · '.join(parts)} · about {_count(assignment.minutes, 'minute')}"


def _count(number: float, thing: str) -> str:
    return f"{number:g} {thing}{'' if number == 1 else 's'}"


def _identity(cell: NotebookNode, before: list[NotebookNode]) -> str:
    """Return a cell id that depends on the text alone, so that an edit elsewhere changes no other cell."""
    name = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
    copies = sum(other.id.startswith(name) for other in before)
    return f"{name}-{copies}" if copies else name
