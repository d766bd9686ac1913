"""Directives that read an assignment's specification, so that a page cannot disagree with the checks.

```{assignment} patches          title, points, minutes, exercises, download
```{mistakes} patches patchify   the known mistakes of an exercise with their hints
"""

import inspect
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from autograder import spec

ROOT = Path(__file__).resolve().parent.parent.parent
DOWNLOADS = ROOT / "_build" / "downloads"


def archive(name: str) -> Path | None:
    """Zip the released folder of an assignment and return the file; None when it was not released yet."""
    folder = ROOT / "assignments" / name
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    if not files:
        return None
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    target = DOWNLOADS / f"{name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for file in files:
            # a fixed date, so that the same files give the same archive
            entry = zipfile.ZipInfo(f"{name}/{file.relative_to(folder)}", (2026, 1, 1, 0, 0, 0))
            out.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return target


def number(points: float) -> str:
    """Return points without a needless .0."""
    return f"{points:g}"


class _FromSpec(SphinxDirective):
    """Writes Markdown from an assignment's specification and parses it in place."""

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = False

    def run(self) -> list[nodes.Node]:
        try:
            assignment = spec.load(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from error
        for module in (inspect.getfile(spec), str(ROOT / f"autograder/specs/{assignment.name}.py")):
            self.env.note_dependency(module)
        holder = nodes.container()
        self.state.nested_parse(
            StringList(list(self.lines(assignment)), source=self.env.docname), self.content_offset, holder
        )
        return holder.children

    def lines(self, assignment: spec.Assignment) -> Iterator[str]:
        """Return the Markdown, line by line."""
        raise NotImplementedError


class AssignmentCard(_FromSpec):
    """Title, points and minutes of an assignment, its exercises, and the download."""

    def lines(self, assignment: spec.Assignment) -> Iterator[str]:
        yield f":::{{admonition}} Assignment `{assignment.name}`: {assignment.title}"
        yield ":class: assignment"
        yield f"**{number(assignment.points)} points, about {assignment.minutes} minutes.**"
        yield ""
        yield "| exercise | points | minutes | difficulty | importance |"
        yield "|---|--:|--:|--:|--:|"
        for exercise in assignment.exercises:
            yield (
                f"| `{exercise.name}` | {number(exercise.points)} | {exercise.minutes} "
                f"| {exercise.difficulty} of 5 | {exercise.importance} of 5 |"
            )
        yield ""
        packed = archive(assignment.name)
        if packed is not None:
            yield (
                f"{{download}}`Download {packed.name} </../_build/downloads/{packed.name}>`, "
                f"unpack it and open `{assignment.name}.ipynb`. "
                f"In the repository it is in `assignments/{assignment.name}/`."
            )
        else:
            yield f"You find it in `assignments/{assignment.name}/` of the repository."
        yield ":::"


class KnownMistakes(_FromSpec):
    """The mistakes that the checks recognise, each with its hint; of one exercise, or of all."""

    def lines(self, assignment: spec.Assignment) -> Iterator[str]:
        wanted = self.arguments[1:]
        known = [exercise.name for exercise in assignment.exercises]
        for name in wanted:
            if name not in known:
                raise self.error(f"{assignment.name} has no exercise {name!r}; it has: {', '.join(known)}")
        for exercise in assignment.exercises:
            if wanted and exercise.name not in wanted:
                continue
            yield f":::{{dropdown}} `{exercise.name}`: {len(exercise.mistakes)} known mistakes"
            for mistake in exercise.mistakes:
                yield f"- **{mistake.name}** · {mistake.hint}"
            yield ":::"
            yield ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("assignment", AssignmentCard)
    app.add_directive("mistakes", KnownMistakes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
