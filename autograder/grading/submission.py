"""Reading what a student handed in. Nothing here trusts the file: every way it can be wrong ends in words."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MOST_BYTES = 100_000_000
MOST_CODE = 1_000_000  # characters in all code cells; outputs do not count
MOST_CELLS = 2_000
SUFFIXES = (".ipynb", ".py")


@dataclass(frozen=True)
class Cell:
    """One cell: `kind` is "code" or "markdown"; `grade_id` is nbgrader's, as the student left it."""

    kind: str
    source: str
    grade_id: str | None = None
    attachments: tuple[tuple[str, str, str], ...] = ()  # (name, media type, base64 data)


@dataclass(frozen=True)
class Submission:
    """What one student handed in.

    `problem` says why there is nothing to grade; then `cells` is empty and `status` is the status of every
    exercise. `notes` are remarks that cost nothing. `timestamp` is the text of nbgrader's timestamp.txt.
    """

    file: str
    data: bytes = b""
    cells: tuple[Cell, ...] = ()
    problem: str | None = None
    status: str = "error"
    notes: tuple[str, ...] = ()
    timestamp: str | None = None

    @property
    def code(self) -> list[str]:
        """The sources of the code cells, in order."""
        return [cell.source for cell in self.cells if cell.kind == "code"]


class Unreadable(Exception):
    """Says in words why a file cannot be read as a submission."""


def read(path: str | Path, folder: int | None = None) -> Submission:
    """Return the submission in one .ipynb or .py file; `folder` is an open directory to start from."""
    file = str(path)
    data = b""
    try:
        if not file.endswith(SUFFIXES):
            raise Unreadable(f"{Path(file).name} is neither a notebook (.ipynb) nor a Python file (.py)")
        data = read_bytes(path, folder)
        if file.endswith(".py"):
            return _bounded(
                Submission(file, data, (Cell("code", _clean(data.decode("utf-8-sig", "replace"))),))
            )
        cells, notes = _cells(data)
        return _bounded(Submission(file, data, cells, notes=notes))
    except Unreadable as problem:
        return Submission(file, data, problem=str(problem))


def _bounded(submission: Submission) -> Submission:
    """Return the submission. Raises Unreadable when there is more code in it than anybody writes."""
    code = sum(map(len, submission.code))
    if code > MOST_CODE:
        raise Unreadable(f"the code has {code} characters; the limit is {MOST_CODE}")
    if len(submission.cells) > MOST_CELLS:
        raise Unreadable(f"the notebook has {len(submission.cells)} cells; the limit is {MOST_CELLS}")
    return submission


def read_bytes(path: str | Path, folder: int | None = None, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file. Raises Unreadable for anything else and above `most` bytes."""
    name = Path(path).name
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if os.path.islink(path) if folder is None else _is_link(name, folder):
            raise Unreadable(f"{name} is a symbolic link; links are not followed") from None
        raise Unreadable(f"{name} cannot be opened: {error.strerror}") from None
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode):
        os.close(file)
        raise Unreadable(f"{name} is {_kind(info.st_mode)}, not a file")
    with open(file, "rb") as opened:
        if info.st_size > most:
            raise Unreadable(f"{name} has {info.st_size / 1e6:.0f} MB; the limit is {most / 1e6:.0f} MB")
        data = opened.read(most + 1)
    if len(data) > most:
        raise Unreadable(f"{name} is larger than {most / 1e6:.0f} MB")
    return data


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _kind(mode: int) -> str:
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def find(folder: Path, assignment: str) -> Submission:
    """Return the submission in submitted/<student>/<assignment>/.

    The file is called <assignment>.ipynb or <assignment>.py; the only notebook under another name counts too.
    """
    expected = f"{assignment}.ipynb"
    with _opened(folder) as opened:
        if isinstance(opened, str):
            return Submission(str(folder / expected), problem=opened)
        found = sorted(name for name in os.listdir(opened) if name.endswith(SUFFIXES))
        notebooks = [name for name in found if name.endswith(".ipynb")]
        chosen = next((name for name in (expected, f"{assignment}.py") if name in found), None)
        notes: tuple[str, ...] = ()
        if chosen is None and len(notebooks or found) == 1:
            chosen = (notebooks or found)[0]
            notes = (f"The file is called {chosen}; it was graded as {expected}.",)
        elif chosen is None and found:
            listed = ", ".join(found[:5])
            return Submission(
                str(folder / expected), problem=f"none of {listed} is called {expected}; which one counts?"
            )
        elif chosen is None:
            problem = f"no notebook was handed in ({expected} expected)"
            return Submission(str(folder / expected), problem=problem, status="missing")
        elif len(notebooks) > 1 and chosen == expected:
            others = ", ".join(name for name in notebooks if name != expected)
            notes = (f"{expected} was graded; {others} was not looked at.",)
        submission = read(chosen, opened)
        timestamp = _timestamp(opened)
    return replace(submission, file=str(folder / chosen), notes=notes + submission.notes, timestamp=timestamp)


def _timestamp(folder: int) -> str | None:
    try:
        return read_bytes("timestamp.txt", folder, most=1000).decode("ascii").strip()
    except (Unreadable, ValueError):
        return None


class _opened:
    """A folder, opened without following a link at its last two steps; a string says why it could not be."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[int] = []

    def __enter__(self) -> int | str:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._open.append(os.open(self._folder.parent, flags))
            self._open.append(os.open(self._folder.name, flags, dir_fd=self._open[0]))
            return self._open[-1]
        except OSError as error:
            linked = self._folder.is_symlink() or self._folder.parent.is_symlink()
            reason = "a symbolic link; links are not followed" if linked else error.strerror
            return f"the folder {self._folder.parent.name}/{self._folder.name} cannot be opened: {reason}"

    def __exit__(self, *problem: object) -> None:
        for opened in self._open:
            os.close(opened)


def _cells(data: bytes) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    try:
        notebook = json.loads(data)
    except RecursionError:
        raise Unreadable("the notebook is nested too deeply to be read") from None
    except (ValueError, MemoryError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Unreadable(f"the notebook is damaged: it is not valid JSON{where}") from None
    if not isinstance(notebook, dict):
        raise Unreadable("the notebook is damaged: it holds no cells")
    found = list(_listed(notebook))
    if not found and not isinstance(notebook.get("cells"), list):
        raise Unreadable("the notebook is damaged: it holds no cells")
    cells = tuple(_cell(entry) for entry in found if isinstance(entry, dict))
    broken = len(found) - len(cells)
    notes = (f"{broken} damaged cell{'s were' if broken > 1 else ' was'} left out.",) if broken else ()
    return cells, notes


def _listed(notebook: dict[str, Any]) -> Iterator[Any]:
    """Yield the cells of a notebook of format 4, or those of the worksheets of format 3."""
    if isinstance(notebook.get("cells"), list):
        yield from notebook["cells"]
    elif isinstance(notebook.get("worksheets"), list):
        for sheet in notebook["worksheets"]:
            if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list):
                yield from sheet["cells"]


def _cell(entry: dict[str, Any]) -> Cell:
    source = entry.get("source", entry.get("input", ""))  # "input" is format 3's name
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    metadata = entry.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return Cell(
        "code" if entry.get("cell_type") == "code" else "markdown",
        _clean(source) if isinstance(source, str) else "",
        grade_id if isinstance(grade_id, str) else None,
        tuple(_attachments(entry.get("attachments"))),
    )


def _attachments(attachments: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(attachments, dict):
        for name, bundle in attachments.items():
            for media, data in bundle.items() if isinstance(bundle, dict) else ():
                if isinstance(data, str):
                    yield name, media, data


def _clean(text: str) -> str:
    """Return the text without lone surrogates and null characters, which nothing behind here can store."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "").replace("\r\n", "\n")
