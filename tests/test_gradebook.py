"""A class graded into nbgrader's gradebook and autograded/, and what nbgrader's own commands make of it."""

import base64
import contextlib
import copy
import csv
import datetime
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.utils import determine_grade
from PIL import Image

from autograder import spec
from autograder.grading import bulk, feedback, report
from autograder.grading.course import Course
from autograder.grading.gradebook import NotReleased
from autograder.release import release
from autograder.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
PATCHES = spec.load("patches")
RIGHT = {exercise.name: spec.edited(exercise.reference) for exercise in PATCHES.exercises}
MISTAKE = next(e for e in PATCHES.exercises if e.name == "patchify").mistakes[0]
Notebook = dict[str, Any]
Edit = Callable[[Notebook], None]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course in which `patches` is released."""
    root = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "nbgrader_config.py", root)
    (root / "solutions").mkdir()
    shutil.copy(ROOT / "solutions" / "patches.py", root / "solutions")
    release(PATCHES, root)
    return root


@pytest.fixture
def root(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that course for one test, with verdicts of the tests before it."""
    root = tmp_path / "course"
    shutil.copytree(released, root, ignore=shutil.ignore_patterns("_build"))
    monkeypatch.setenv("AUTOGRADER_SECRET", "a secret for these tests")
    verdicts = released.parent / "verdicts"
    verdicts.mkdir(exist_ok=True)
    (root / ".autograder").mkdir(exist_ok=True)
    (root / ".autograder" / "verdicts").symlink_to(verdicts)
    return root


class Class:
    """A course with students, for tests."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        self.root = root
        self._sandbox = sandbox
        self._blank = json.loads((root / "assignments/patches/patches.ipynb").read_text())

    def hand_in(
        self, student: str, edit: Edit | None = None, when: str | None = None, **answers: str
    ) -> None:
        """Hand in a notebook of right answers, some replaced, then edited."""
        notebook = copy.deepcopy(self._blank)
        for cell in notebook["cells"]:
            name = cell["metadata"].get("nbgrader", {}).get("grade_id")
            if name in RIGHT:
                cell["source"] = {**RIGHT, **answers}[name]
        if edit:
            edit(notebook)
        folder = self.root / "submitted" / student / "patches"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "patches.ipynb").write_text(json.dumps(notebook))
        if when:
            (folder / "timestamp.txt").write_text(when)

    def hand_in_text(self, student: str, text: str) -> None:
        """Hand in any text as a notebook."""
        folder = self.root / "submitted" / student / "patches"
        folder.mkdir(parents=True)
        (folder / "patches.ipynb").write_text(text)

    def grade(self, **options: Any) -> bulk.Outcome:
        """Grade with the shared sandbox."""
        return bulk.grade(Course(self.root), PATCHES, lambda: nullcontext(self._sandbox), 1, **options)

    def gradebook(self) -> Gradebook:
        """nbgrader's own view."""
        return Gradebook(f"sqlite:///{self.root}/gradebook.db", "vit")

    def score(self, student: str) -> float:
        """The score that nbgrader gives."""
        with self.gradebook() as book:
            return float(book.find_submission("patches", student).score)

    def autograded(self, student: str) -> nbformat.NotebookNode:
        """The autograded notebook, valid by nbformat's schema."""
        path = self.root / "autograded" / student / "patches" / "patches.ipynb"
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        return notebook


@pytest.fixture
def course(root: Path, warm_sandbox: Sandbox) -> Class:
    return Class(root, warm_sandbox)


def graded_cells(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    named = {cell.metadata.nbgrader.grade_id: cell for cell in cells}
    assert len(named) == len(cells), "a check cell is there twice"
    return named


def test_scores_arrive_in_the_gradebook(course: Class) -> None:
    course.hand_in("ada")
    course.hand_in("bob", patchify=MISTAKE.code)
    course.hand_in_text("eve", "{broken")
    outcome = course.grade()
    assert outcome.failures == {}
    assert {student: verdict.score for student, verdict in outcome.verdicts.items()} == {
        "ada": 21,
        "bob": 16,
        "eve": 0,
    }
    assert [course.score(student) for student in ("ada", "bob", "eve")] == [21, 16, 0]
    with course.gradebook() as book:
        assert not any(s.needs_manual_grade for s in book.assignment_submissions("patches"))
        assert book.find_grade("check-patchify", "patches", "patches", "bob").auto_score == 2


def test_nbgrader_reads_the_same_points_from_the_autograded_notebook(course: Class) -> None:
    course.hand_in("bob", patchify=MISTAKE.code)
    course.grade()
    cells = graded_cells(course.autograded("bob"))
    points = {name: determine_grade(cell) for name, cell in cells.items()}
    assert points == {
        "check-num_patches": (3, 3),
        "check-patchify": (2, 7),
        "check-unpatchify": (6, 6),
        "check-projection_to_conv": (5, 5),
    }
    assert [output.output_type for output in cells["check-patchify"].outputs] == [
        "display_data",
        "execute_result",
    ]
    assert MISTAKE.hint in cells["check-patchify"].outputs[0].data["text/plain"]


def without_checks(notebook: Notebook) -> None:
    notebook["cells"] = [c for c in notebook["cells"] if not c["metadata"].get("nbgrader", {}).get("grade")]


def with_checks_twice(notebook: Notebook) -> None:
    notebook["cells"] += [c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]


def with_edited_checks(notebook: Notebook) -> None:
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["source"] = "7.0"
            cell["metadata"]["nbgrader"].update(points=1000, locked=False, solution=True)


def upside_down(notebook: Notebook) -> None:
    notebook["cells"].reverse()


def without_metadata(notebook: Notebook) -> None:
    for cell in notebook["cells"]:
        cell["metadata"] = {}


@pytest.mark.parametrize(
    "edit", [without_checks, with_checks_twice, with_edited_checks, upside_down, without_metadata]
)
def test_check_cells_come_back_once_each_as_released(edit: Edit, course: Class) -> None:
    course.hand_in("ada", edit)
    course.grade()
    cells = graded_cells(course.autograded("ada"))
    assert {name: cell.source for name, cell in cells.items()} == {
        f"check-{name}": f"check({name})" for name in RIGHT
    }
    assert sum(determine_grade(cell)[0] for cell in cells.values()) == course.score("ada") == 21


def test_manual_points_credit_and_comments_survive_a_regrade(course: Class) -> None:
    course.hand_in("ada", patchify=MISTAKE.code)
    course.grade()
    with course.gradebook() as book:
        grade = book.find_grade("check-patchify", "patches", "patches", "ada")
        grade.manual_score, grade.extra_credit = 4, 0.5
        book.find_comment("patchify", "patches", "patches", "ada").manual_comment = "nearly"
        book.db.commit()
    course.grade()
    with course.gradebook() as book:
        assert not book.find_grade("check-patchify", "patches", "patches", "ada").needs_manual_grade
    course.hand_in("ada", num_patches="num_patches = None", patchify=MISTAKE.code)
    course.grade()
    with course.gradebook() as book:
        grade = book.find_grade("check-patchify", "patches", "patches", "ada")
        assert (grade.manual_score, grade.extra_credit, grade.score) == (4, 0.5, 4.5)
        assert grade.needs_manual_grade, "the work changed after a person graded it"
        assert book.find_comment("patchify", "patches", "patches", "ada").comment == "nearly"


def test_an_unsolved_exercise_gets_nbgraders_comment(course: Class) -> None:
    blank = next(
        c["source"]
        for c in course._blank["cells"]
        if c["metadata"].get("nbgrader", {}).get("grade_id") == "patchify"
    )
    course.hand_in("ada", patchify="".join(blank))
    course.grade()
    with course.gradebook() as book:
        assert book.find_comment("patchify", "patches", "patches", "ada").auto_comment == "No response."
        assert book.find_comment("unpatchify", "patches", "patches", "ada").auto_comment is None


LATE = """
from nbgrader.plugins import LateSubmissionPlugin
class OnePointAnHour(LateSubmissionPlugin):
    def late_submission_penalty(self, student_id, score, total_seconds_late):
        return total_seconds_late / 3600
c.AssignLatePenalties.plugin_class = OnePointAnHour
"""


@pytest.mark.parametrize(
    ("when", "extension", "penalty"),
    [
        ("2026-11-20 12:00:00 UTC", None, None),
        ("2026-11-20 15:00:00 UTC", None, 3),
        ("2026-11-20T17:00:00+02:00", None, 3),
        ("2026-11-20 15:00:00 UTC", datetime.timedelta(hours=2), 1),
        ("2026-12-20 12:00:00 UTC", None, 21),
        ("soon", None, None),
        ("9" * 500, None, None),
    ],
    ids=[
        "in time",
        "three hours",
        "another time zone",
        "with an extension",
        "more than the score",
        "no date",
        "digits",
    ],
)
def test_late_penalties_come_from_nbgraders_plugin(
    when: str, extension: datetime.timedelta | None, penalty: float | None, course: Class
) -> None:
    with (course.root / "nbgrader_config.py").open("a") as settings:
        settings.write(LATE)
    with course.gradebook() as book:
        book.update_or_create_assignment("patches", duedate=datetime.datetime(2026, 11, 20, 12))
        if extension:
            book.add_student("ada")
            book.add_submission("patches", "ada").extension = extension
            book.db.commit()
    course.hand_in("ada", when=when)
    course.grade()
    with course.gradebook() as book:
        assert book.find_submission_notebook("patches", "patches", "ada").late_submission_penalty == penalty
    stamp = course.root / "autograded/ada/patches/timestamp.txt"
    assert stamp.exists() == when.startswith("20")


def test_a_known_student_keeps_the_name(course: Class) -> None:
    with course.gradebook() as book:
        book.add_student("ada", first_name="Ada", last_name="Lovelace")
    course.hand_in("ada")
    course.grade()
    with course.gradebook() as book:
        assert book.find_student("ada").last_name == "Lovelace"


def test_an_unknown_student_is_a_failure_where_nbgrader_may_not_create_one(course: Class) -> None:
    with (course.root / "nbgrader_config.py").open("a") as settings:
        settings.write("\nc.Autograde.create_student = False\n")
    with course.gradebook() as book:
        book.add_student("ada")
    course.hand_in("ada")
    course.hand_in("eve")
    outcome = course.grade()
    assert list(outcome.verdicts) == ["ada"]
    assert "no student 'eve'" in outcome.failures["eve"]


def test_a_folder_whose_name_no_database_takes_is_a_failure_of_its_own(course: Class) -> None:
    course.hand_in("ada")
    course.hand_in(os.fsdecode(b"\xff\xfe"))
    outcome = course.grade()
    assert list(outcome.verdicts) == ["ada"]
    assert "cannot be a student's id" in str(outcome.failures)
    assert course.score("ada") == 21


def test_an_unreleased_assignment_is_refused(course: Class) -> None:
    (course.root / "gradebook.db").unlink()
    with pytest.raises(NotReleased, match="autograder release patches"):
        course.grade()


def test_points_that_differ_from_the_gradebooks_are_refused(course: Class) -> None:
    first = PATCHES.exercises[0]
    groups = (replace(first.cases[0], points=2), *first.cases[1:])
    changed = replace(PATCHES, exercises=(replace(first, points=4, cases=groups), *PATCHES.exercises[1:]))
    with pytest.raises(NotReleased, match=r"3\.0 points for num_patches, the specification 4"):
        bulk.grade(Course(course.root), changed, lambda: nullcontext(course._sandbox), 1)


def test_what_is_unchanged_is_not_graded_twice(course: Class) -> None:
    course.hand_in("ada", patchify=MISTAKE.code.replace("=", " = ", 1))
    assert course.grade(force=True).stored == 0
    before = (course.root / "autograded/ada/patches/patches.ipynb").stat().st_mtime_ns
    assert course.grade().stored == 1
    assert (course.root / "autograded/ada/patches/patches.ipynb").stat().st_mtime_ns == before


def test_one_student_can_be_graded_alone_and_stays_in_the_report(course: Class) -> None:
    course.hand_in("ada")
    course.hand_in("bob", patchify=MISTAKE.code)
    course.grade()
    course.hand_in("bob")
    assert list(course.grade(only={"bob"}).verdicts) == ["bob"]
    kept = report.kept_verdicts(course.root / ".autograder", "patches")
    assert {student: verdict["score"] for student, verdict in kept.items()} == {"ada": 21, "bob": 21}


def test_two_gradings_of_a_course_do_not_meet(course: Class) -> None:
    course.hand_in("ada")
    with Course(course.root).only_writer(), pytest.raises(BlockingIOError):
        course.grade()


def picture(kind: str) -> str:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, kind, comment=b"<script>" if kind == "JPEG" else None)
    return base64.b64encode(out.getvalue() + b"<script>alert(1)</script>").decode()


EVIL = {
    "markdown": {
        "cell_type": "markdown",
        "source": "<script>alert('evil')</script> a <img src=x onerror=alert('evil')>",
    },
    "a link": {
        "cell_type": "markdown",
        "source": "[x](javascript:alert('evil')) [y](java&#115;cript&colon;evil()) [z](javascript\\:evil())",
    },
    "a formula": {"cell_type": "markdown", "source": "$\\href{javascript:evil()}{x}$"},
    "a raw cell": {
        "cell_type": "raw",
        "source": "<script>alert('evil')</script>",
        "metadata": {"raw_mimetype": "text/html"},
    },
    "an attachment": {
        "cell_type": "markdown",
        "source": "![a](attachment:a.png) ![b](attachment:evil.svg)",
        "attachments": {
            "a.png": {"image/png": picture("PNG")},
            "evil.svg": {"image/svg+xml": "<svg onload=evil()>"},
        },
    },
    "printed HTML": {
        "cell_type": "code",
        "source": "from IPython.display import HTML\nHTML('<b onclick=evil()>hi</b><scr' + 'ipt>evil()')",
    },
    "a script": {
        "cell_type": "code",
        "source": "from IPython.display import Javascript\nJavascript('ev' + 'il()')",
    },
    "an SVG": {
        "cell_type": "code",
        "source": "from IPython.display import SVG\n"
        'SVG(\'<svg xmlns="http://www.w3.org/2000/svg" onload="evil()"/>\')',
    },
    "printed markdown": {
        "cell_type": "code",
        "source": "from IPython.display import Markdown\nMarkdown('<scr' + 'ipt>evil()</scr' + 'ipt>')",
    },
    "a traceback": {"cell_type": "code", "source": "raise ValueError('<scr' + 'ipt>evil()</scr' + 'ipt>')"},
    "printed text": {"cell_type": "code", "source": "print('<scr' + 'ipt>evil()</scr' + 'ipt>')"},
}


@pytest.fixture(scope="module")
def evil_page(released: Path, tmp_path_factory: pytest.TempPathFactory, warm_sandbox: Sandbox) -> str:
    """The feedback page on a notebook that tries everything at once."""
    root = tmp_path_factory.mktemp("evil") / "course"
    shutil.copytree(released, root)
    course = Class(root, warm_sandbox)

    def edit(notebook: Notebook) -> None:
        for number, cell in enumerate(EVIL.values()):
            notebook["cells"].append({"metadata": {}, "id": f"<script>{number}", **cell})
        notebook["cells"][0]["id"] = '"><script>alert(1)</script>'
        notebook["metadata"]["kernelspec"] = {"name": "<script>", "display_name": "<script>"}

    course.hand_in("eve", edit)
    course.grade()
    pages, problem = feedback.generate(Course(root), "patches")
    assert problem is None
    return pages[0].read_text()


def parts_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    from html.parser import HTMLParser

    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attributes)))

    Reader().feed(page)
    return found


def test_no_script_of_a_student_is_in_the_feedback_page(evil_page: str) -> None:
    parts = parts_of(evil_page)
    assert not [names for _, names in parts for name in names if name.startswith("on")]
    links = [str(value) for _, names in parts for name, value in names.items() if name in ("href", "src")]
    assert not [link for link in links if "script:" in link.lower() or "svg" in link]
    assert "svg" not in {tag for tag, _ in parts}
    scripts = evil_page.split("<script")[1:]
    assert not [script for script in scripts if "evil" in script.split("</script>")[0]]


def test_a_picture_in_an_answer_stays(evil_page: str) -> None:
    assert [
        names
        for tag, names in parts_of(evil_page)
        if tag == "img" and str(names["src"]).startswith("data:image/png")
    ]


def test_plain_formatting_of_the_released_text_stays(evil_page: str) -> None:
    assert "<summary>" in evil_page


def test_feedback_shows_points_and_reason(course: Class) -> None:
    course.hand_in("bob", patchify=MISTAKE.code)
    course.grade()
    pages, problem = feedback.generate(Course(course.root), "patches")
    assert problem is None
    text = pages[0].read_text()
    assert "(Score: 16.0 / 21.0)" in text
    assert "patchify: 2 of 7 points (partial)" in text


def test_feedback_is_written_for_what_could_not_be_read(course: Class) -> None:
    course.hand_in_text("eve", "{broken")
    course.grade()
    pages, problem = feedback.generate(Course(course.root), "patches")
    assert problem is None
    assert "not valid JSON" in pages[0].read_text()


def test_nbgraders_own_export_gives_the_scores(course: Class) -> None:
    course.hand_in("ada")
    course.hand_in("bob", patchify=MISTAKE.code)
    course.grade()
    nbgrader = [sys.executable, "-m", "nbgrader", "export", "--to", "grades.csv"]
    subprocess.run(
        nbgrader,
        cwd=course.root,
        check=True,
        capture_output=True,
        env={**os.environ, "HOME": str(course.root)},
    )
    rows = list(csv.DictReader((course.root / "grades.csv").open()))
    assert {row["student_id"]: row["score"] for row in rows} == {"ada": "21.0", "bob": "16.0"}


# Formgrader


@pytest.fixture(scope="module")
def formgrader(
    released: Path, tmp_path_factory: pytest.TempPathFactory, warm_sandbox: Sandbox
) -> Iterator[str]:
    """The address of the page on which a person grades the notebook that tries everything at once."""
    root = tmp_path_factory.mktemp("formgrader") / "course"
    shutil.copytree(released, root)
    course = Class(root, warm_sandbox)
    evil = [{"metadata": {}, **cell} for cell in EVIL.values()]
    course.hand_in("eve", lambda notebook: notebook["cells"].extend(evil), patchify=MISTAKE.code)
    course.grade()
    with course.gradebook() as book:
        submission = book.find_submission_notebook("patches", "patches", "eve").id
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    extensions = "{'nbgrader.server_extensions.formgrader': True}"
    command = [sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", f"--port={port}"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={root}"]
    command += [f"--ServerApp.jpserver_extensions={extensions}"]
    home = {**os.environ, "HOME": str(root)}
    with subprocess.Popen(
        command, cwd=root, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        address = f"http://127.0.0.1:{port}/formgrader/submissions/{submission}/"
        try:
            for _ in range(120):
                with contextlib.suppress(OSError), urllib.request.urlopen(address):
                    break
                time.sleep(0.5)
            yield address
        finally:
            server.terminate()


@pytest.mark.browser
def test_formgrader_shows_the_result_and_runs_no_script_of_the_student(
    formgrader: str, tmp_path: Path
) -> None:
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    shown = subprocess.run(
        [*chromium, "--virtual-time-budget=8000", "--dump-dom", formgrader],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert "patchify: 2 of 7 points (partial)" in shown
    assert 'class="score" id="' in shown or "extra-credit" in shown
    parts = parts_of(shown)
    links = [str(value) for _, names in parts for name, value in names.items() if name in ("href", "src")]
    assert not [link for link in links if "script:" in link.lower()]
    assert not [names for _, names in parts if "evil" in str([n for n in names if n.startswith("on")])]
    assert not [script for script in shown.split("<script")[1:] if "evil" in script.split("</script>")[0]]
