"""Reading what a student handed in: every way it can be wrong ends in words."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autograder.grading.submission import Submission, find, read


def notebook(*cells: Any, **top: Any) -> str:
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **top})


def code(source: Any = "x = 1", **more: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        **more,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ada" / "patches"
    made.mkdir(parents=True)
    return made


READABLE = {
    "source as a text": (notebook(code("x = 1\ny = 2")), ["x = 1\ny = 2"]),
    "source as a list": (notebook(code(["x = 1\n", "y = 2"])), ["x = 1\ny = 2"]),
    "source as a list with other things": (notebook(code(["x = 1\n", 5, None])), ["x = 1\n"]),
    "source that is a number": (notebook(code(7)), [""]),
    "no source": (notebook({"cell_type": "code"}), [""]),
    "windows line ends": (notebook(code("x = 1\r\ny = 2")), ["x = 1\ny = 2"]),
    "half a character": (notebook(code("x = '\ud800'")), ["x = '?'"]),
    "cells that are not dicts": (notebook(1, None, [], code()), ["x = 1"]),
    "metadata that is not a dict": (notebook(code(metadata="bad")), ["x = 1"]),
    "nbgrader metadata that is not a dict": (notebook(code(metadata={"nbgrader": 3})), ["x = 1"]),
    "a grade id that is not a text": (notebook(code(metadata={"nbgrader": {"grade_id": [1]}})), ["x = 1"]),
    "another kernel": (notebook(code(), metadata={"kernelspec": {"name": "julia"}}), ["x = 1"]),
    "notebook metadata that is not a dict": (notebook(code(), metadata=[]), ["x = 1"]),
    "no cells at all": (notebook(), []),
    "a cell of an unknown type": (notebook({"cell_type": "heart", "source": "x"}, code()), ["x = 1"]),
    "format 3": (
        json.dumps(
            {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1\n", "y = 2"]}]}]}
        ),
        ["x = 1\ny = 2"],
    ),
    "format 3 with damaged worksheets": (
        json.dumps({"worksheets": [4, {"cells": 5}, {"cells": [{"cell_type": "code", "input": "x"}]}]}),
        ["x"],
    ),
}


@pytest.mark.parametrize(("text", "sources"), READABLE.values(), ids=READABLE.keys())
def test_an_odd_notebook_is_read(folder: Path, text: str, sources: list[str]) -> None:
    (folder / "patches.ipynb").write_text(text)
    submission = find(folder, "patches")
    assert submission.problem is None
    assert submission.code == sources


def test_damaged_cells_are_left_out_with_a_note(folder: Path) -> None:
    (folder / "patches.ipynb").write_text(notebook(1, None, code()))
    assert find(folder, "patches").notes == ("2 damaged cells were left out.",)


DAMAGED = {
    "broken JSON": ("{not json", "not valid JSON"),
    "nothing": ("", "not valid JSON"),
    "no UTF-8": (b"\xff\xfe\x00\xd8", "not valid JSON"),
    "deep nesting": ("[" * 200_000, "nested too deeply"),
    "deep nesting inside": ('{"cells": ' + "[" * 200_000, "nested too deeply"),
    "a JSON text": ('"hello"', "no cells"),
    "a JSON list": ("[]", "no cells"),
    "no cells": ("{}", "no cells"),
    "cells that are no list": ('{"cells": 3}', "no cells"),
    "too much code": (notebook(code("x" * 1_000_001)), "the limit is 1000000"),
    "too many cells": (notebook(*[code()] * 2001), "the limit is 2000"),
    "a number of a million digits": ('{"cells": ' + "1" * 1_000_000 + "}", "not valid JSON"),
}


@pytest.mark.parametrize(("content", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_notebook_says_what_is_wrong(folder: Path, content: str | bytes, reason: str) -> None:
    (folder / "patches.ipynb").write_bytes(content if isinstance(content, bytes) else content.encode())
    submission = find(folder, "patches")
    assert reason in str(submission.problem)
    assert submission.code == []


def big(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200_000_000)


NO_FILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a link": (lambda path: path.symlink_to("/etc/passwd"), "is a symbolic link"),
    "a broken link": (lambda path: path.symlink_to("nowhere"), "is a symbolic link"),
    "a named pipe": (os.mkfifo, "is a named pipe"),
    "a folder": (os.mkdir, "is a folder"),
    "200 MB": (big, "has 200 MB; the limit is 100 MB"),
}


@pytest.mark.parametrize(("make", "reason"), NO_FILE.values(), ids=NO_FILE.keys())
def test_what_is_no_ordinary_file_is_refused(folder: Path, make: Callable[[Path], Any], reason: str) -> None:
    make(folder / "patches.ipynb")
    submission = find(folder, "patches")
    assert reason in str(submission.problem)
    assert submission.data == b""


def test_another_kind_of_file_is_refused() -> None:
    assert read("/dev/zero").problem == "zero is neither a notebook (.ipynb) nor a Python file (.py)"


def test_a_linked_assignment_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "patches.ipynb").write_text(notebook(code()))
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "patches").symlink_to(folder)
    assert "symbolic link" in str(find(tmp_path / "eve" / "patches", "patches").problem)


def test_a_linked_student_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "patches.ipynb").write_text(notebook(code()))
    (tmp_path / "eve").symlink_to(folder.parent)
    assert "symbolic link" in str(find(tmp_path / "eve" / "patches", "patches").problem)


def test_no_notebook_is_missing(folder: Path) -> None:
    submission = find(folder, "patches")
    assert submission.status == "missing"
    assert "no notebook was handed in" in str(submission.problem)


def test_the_only_notebook_counts_under_any_name(folder: Path) -> None:
    (folder / "my homework.ipynb").write_text(notebook(code()))
    submission = find(folder, "patches")
    assert submission.code == ["x = 1"]
    assert submission.notes == ("The file is called my homework.ipynb; it was graded as patches.ipynb.",)


def test_of_two_notebooks_the_expected_name_counts(folder: Path) -> None:
    (folder / "patches.ipynb").write_text(notebook(code("right")))
    (folder / "patches-old.ipynb").write_text(notebook(code("wrong")))
    submission = find(folder, "patches")
    assert submission.code == ["right"]
    assert submission.notes == ("patches.ipynb was graded; patches-old.ipynb was not looked at.",)


def test_two_notebooks_under_other_names_are_not_guessed(folder: Path) -> None:
    for name in ("a.ipynb", "b.ipynb"):
        (folder / name).write_text(notebook(code()))
    assert "none of a.ipynb, b.ipynb is called patches.ipynb" in str(find(folder, "patches").problem)


def test_a_python_file_is_one_cell(folder: Path) -> None:
    (folder / "patches.py").write_text("x = 1\n\ny = 2\n")
    assert find(folder, "patches").code == ["x = 1\n\ny = 2\n"]


def test_the_timestamp_is_read_unless_it_is_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "patches.ipynb").write_text(notebook(code()))
    (folder / "timestamp.txt").write_text("2026-11-20 10:00:00 UTC\n")
    assert find(folder, "patches").timestamp == "2026-11-20 10:00:00 UTC"
    (folder / "timestamp.txt").unlink()
    (tmp_path / "other").write_text("2020-01-01")
    (folder / "timestamp.txt").symlink_to(tmp_path / "other")
    assert find(folder, "patches").timestamp is None


def test_a_missing_file_says_so() -> None:
    assert read("/nowhere/patches.ipynb") == Submission(
        "/nowhere/patches.ipynb", problem="patches.ipynb cannot be opened: No such file or directory"
    )
