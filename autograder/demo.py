"""`autograder demo`: a made-up class gets its assignments, fills its notebooks and is graded.

Nothing is stored beforehand: each notebook is filled from the one just released and graded like any other.
"""

import ast
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from rich.console import Console

from autograder import mutation, spec
from autograder.spec import Assignment

COURSE = Path("_build/demo")
BOOK = "build book --config _config.yml --path-output . -W -n --keep-going -q"
NAMES = [
    "ada",
    "alan",
    "alonzo",
    "barbara",
    "donald",
    "edsger",
    "emmy",
    "evelyn",
    "frances",
    "grace",
    "hedy",
    "ida",
    "jean",
    "john",
    "karen",
    "katherine",
    "leslie",
    "margaret",
    "mary",
    "niklaus",
    "radia",
    "sophie",
    "tony",
    "yukihiro",
]

CRASHES = "import os\n\ndef {name}(*args, **kwargs):\n    os._exit(3)\n"
LOOPS = "def {name}(*args, **kwargs):\n    while True:\n        pass\n"
# Each of these paid full marks, or harmed somebody else's, in some grader.
HOSTILE = [
    "import torch\ntorch.testing.assert_close = torch.allclose = torch.equal = lambda *args, **kwargs: True\n"
    "class Always:\n    def __eq__(self, other):\n        return True\n"
    "def {name}(*args, **kwargs):\n    return Always()\n",
    "import os\nif os.fork() == 0:\n    while True:\n        open('/tmp/gradebook.db', 'w').write('100')\n"
    "print('x' * 50_000_000)\ndef {name}(*args, **kwargs):\n    return open('solutions/patches.py').read()\n",
]


def styles(assignment: Assignment) -> list[dict[str, str]]:
    """Return the independent right answers of `tests/answers/`, each as code by exercise, ready for its cell.

    What a file defines beside the exercises (imports, helpers) goes before its first exercise.
    """
    names = [exercise.name for exercise in assignment.exercises]
    found = []
    for path in sorted((mutation.ANSWERS / assignment.name).glob("*.py")):
        code = dict.fromkeys(names, "")
        for node in ast.parse(path.read_text()).body:
            name = getattr(node, "name", "")
            code[name if name in code else names[0]] += ast.unparse(node) + "\n\n"
        if all(code.values()):
            found.append(code)
    return found


def students(assignment: Assignment) -> Iterator[dict[str, str]]:
    """Yield 24 submissions as code by exercise; an exercise that is left out stays unsolved.

    Six are right, in several styles; seven share the most popular mistake and have one more elsewhere; six
    have a known mistake in every exercise; the last five are half done, untouched, crashing, looping and
    hostile.
    """
    right, exercises = styles(assignment), assignment.exercises
    names = [exercise.name for exercise in exercises]
    popular = max(exercises[:3], key=lambda exercise: exercise.difficulty)
    others = [exercise for exercise in exercises if exercise is not popular]
    yield from (right[number % len(right)] for number in range(6))
    for number in range(7):
        other = others[number % len(others)]
        rare = other.mistakes[-1 - number // len(others)]
        yield {**right[number % len(right)], popular.name: popular.mistakes[0].code, other.name: rare.code}
    for number in range(6):
        yield {each.name: each.mistakes[number + (each is popular)].code for each in exercises}
    yield {name: right[0][name] for name in names[: len(names) // 2]}
    yield {}
    yield {**right[0], names[1]: CRASHES.format(name=names[1])}
    yield {**right[1], names[2]: LOOPS.format(name=names[2])}
    yield {name: HOSTILE[number % 2].format(name=name) for number, name in enumerate(names)}


def fill(notebook: nbformat.NotebookNode, code: dict[str, str]) -> nbformat.NotebookNode:
    """Return the released notebook with `code` in its exercise cells."""
    filled = nbformat.from_dict(dict(notebook))
    for cell in filled.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if cell.cell_type == "code" and name in code:
            cell.source = code[name]
    return filled


def submit(course: Path, assignment: Assignment) -> None:
    """Write the class's submissions into `submitted/` as students would hand them in."""
    file = f"{assignment.name}.ipynb"
    released = nbformat.read(course / "assignments" / assignment.name / file, as_version=4)
    for student, code in zip(NAMES, students(assignment), strict=True):
        folder = course / "submitted" / student / assignment.name
        folder.mkdir(parents=True)
        nbformat.write(fill(released, code), folder / file)
        (folder / "timestamp.txt").write_text(datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))


def prepare(course: Path, sources: Path) -> None:
    """Make an empty course folder with the sources of the course in `sources`."""
    shutil.rmtree(course, ignore_errors=True)
    course.mkdir(parents=True)
    shutil.copy(sources / "nbgrader_config.py", course)
    shutil.copytree(sources / "solutions", course / "solutions")


def main(assignments: list[str]) -> int:
    """Run the demo in the course's repository and print what it found and how long each part took."""
    from autograder import cli

    if not Path("solutions").is_dir():
        raise FileNotFoundError("solutions/: not found; run `autograder demo` in the course's repository")
    console = Console()
    times: dict[str, float] = {}

    @contextmanager
    def part(title: str) -> Iterator[None]:
        console.rule(f"[bold]{title}")
        start = time.perf_counter()
        yield
        times[title] = time.perf_counter() - start

    def for_each(command: str) -> None:
        for name in assignments:
            console.print(f"[dim]$ autograder {command} {name} --course {COURSE}")
            code = cli.main([command, name, "--course", str(COURSE)])
            if code:
                raise SystemExit(code)

    with part("release"):
        prepare(COURSE, Path())
        for_each("release")
    with part(f"{len(NAMES)} students fill their notebooks"):
        for name in assignments:
            submit(COURSE, spec.load(name))
    for command in ("grade", "feedback", "report"):
        with part(command):
            for_each(command)
    with part("book"):
        failed = subprocess.run(
            [Path(sys.executable).with_name("jupyter-book"), *BOOK.split()], check=False
        ).returncode
    console.rule("[bold]measured")
    for title, seconds in times.items():
        console.print(f"{title:40} {seconds:7.1f} s")
    first = assignments[0]
    console.print(
        f"\nOpen next:"
        f"\n  the book              _build/html/index.html"
        f"\n  a student's feedback  {COURSE}/feedback/{NAMES[6]}/{first}/{first}.html"
        f"\n  the gradebook         cd {COURSE} && ../../.venv/bin/jupyter notebook (menu: Nbgrader)"
        f"\n  an assignment         .venv/bin/jupyter lab assignments/{first}/{first}.ipynb"
    )
    return failed
