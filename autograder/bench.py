"""`make bench`: the same submissions through stock `nbgrader autograde` and `autograder grade`, in one run.

Both start from the command line, read `submitted/`, and write the gradebook and `autograded/`. Machines
differ and are noisy, so the ratio is what counts.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from rich.console import Console
from rich.table import Table

from autograder import cli, demo, spec
from autograder.spec import Assignment

console = Console()


class Course:
    """A scratch course with one released assignment and `count` submissions, right and wrong in turn."""

    def __init__(self, root: Path, assignment: Assignment, count: int) -> None:
        self.root, self.assignment = root, assignment
        demo.prepare(root, Path())
        self.run("autograder", "release", assignment.name)
        file = f"{assignment.name}.ipynb"
        released = nbformat.read(root / "assignments" / assignment.name / file, as_version=4)
        right = demo.styles(assignment)
        for number in range(count):
            exercise = assignment.exercises[number % len(assignment.exercises)]
            code = dict(right[number % len(right)])
            if number % 2:
                code[exercise.name] = exercise.mistakes[number // 2 % len(exercise.mistakes)].code
            notebook = demo.fill(released, code)
            notebook.cells.append(nbformat.v4.new_markdown_cell(f"Handed in by {number}.", id=f"by-{number}"))
            folder = root / "submitted" / f"student{number:04}" / assignment.name
            folder.mkdir(parents=True)
            nbformat.write(notebook, folder / file)
            for name in ("checks.py", "cases.safetensors"):
                shutil.copy(root / "assignments" / assignment.name / name, folder)

    def run(self, module: str, *arguments: str) -> tuple[float, float]:
        """Run a command in the course; return its seconds and the most memory of all its processes in GB."""
        start = time.perf_counter()
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        peak = [0.0]
        watch = threading.Thread(target=_watch, args=(process, peak))
        watch.start()
        said, _ = process.communicate()
        watch.join()
        if process.returncode:
            sys.exit(f"{module} {' '.join(arguments)} failed:\n{said.decode()}")
        return time.perf_counter() - start, peak[0]


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    """Keep in `peak` the largest sum of the proportional memory of a process and all below it, in GB."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_memory, _family(process.pid))) / 1e9)
        time.sleep(0.5)


def _family(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                found += map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split())
    return found


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


@contextlib.contextmanager
def stopwatch(spent: dict[str, float], places: dict[str, tuple[Any, str]]) -> Iterator[None]:
    """Add up in `spent` the seconds that pass in functions, given as {label: (owner, attribute)}."""
    before = {label: getattr(owner, name) for label, (owner, name) in places.items()}

    def timed(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent[label] += time.perf_counter() - start

        return call

    for label, (owner, name) in places.items():
        setattr(owner, name, timed(label, before[label]))
    try:
        yield
    finally:
        for label, (owner, name) in places.items():
            setattr(owner, name, before[label])


def profile(course: Course) -> None:
    """Grade the class once more in this process and print where the time goes."""
    from autograder.grading import autograded, bulk, gradebook, judging, store
    from autograder.sandbox import Sandbox, Session

    spent: dict[str, float] = defaultdict(float)
    places = {
        "start a sandbox (torch, IPython, once a worker)": (Sandbox, "__enter__"),
        "read a submission": (bulk, "find"),
        "fork and run the cells": (Sandbox, "open"),
        "run the probes": (Session, "probe"),
        "judge the answers": (judging, "judged"),
        "end the processes": (Session, "__exit__"),
        "make the autograded notebook": (autograded, "notebook"),
        "store the verdict": (store.Store, "save"),
        "write the gradebook": (gradebook.Gradebook, "flush"),
    }
    start = time.perf_counter()
    count = len(list((course.root / "submitted").iterdir()))
    with stopwatch(spent, places), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        cli.main(["grade", course.assignment.name, "--course", str(course.root), "--force"])
    wall = time.perf_counter() - start
    table = Table(
        "what is left", "ms a submission", "share of the workers' time", title="profile of one more run"
    )
    for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        share = seconds / (wall * (os.cpu_count() or 1))
        table.add_row(label, f"{1000 * seconds / count:.1f}", f"{100 * share:.0f} %")
    console.print(table)


def student_share(course: Course, seconds: float) -> float:
    """Return the share of the workers' time that student code took (cells and probes), from the verdicts."""
    folder = course.root / ".autograder" / "verdicts"
    kept = (json.loads(path.read_text()) for path in folder.glob("*.json"))
    return sum(verdict["student_seconds"] for verdict in kept) / (seconds * (os.cpu_count() or 1))


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print both rates and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m autograder.bench", description=__doc__)
    parser.add_argument("--assignment", default="patches")
    parser.add_argument("--submissions", type=int, default=40, help="graded by both (default: %(default)s)")
    parser.add_argument(
        "--many", type=int, default=400, help="graded by ours alone, the size of a large class"
    )
    arguments = parser.parse_args(argv)
    assignment, count = spec.load(arguments.assignment), arguments.submissions
    columns = ("", "submissions", "seconds", "a minute", "against stock", "memory (GB)")
    table = Table(*columns, title=f"{assignment.name}, {os.cpu_count()} cores")
    stock_rate = 0.0

    def row(title: str, module: str, verb: str, course: Course, count: int) -> float:
        nonlocal stock_rate
        seconds, memory = course.run(module, verb, assignment.name)
        stock_rate = stock_rate or count / seconds
        figures = (f"{seconds:.1f}", f"{60 * count / seconds:.0f}", f"{count / seconds / stock_rate:.1f}")
        table.add_row(title, str(count), *figures, f"{memory:.1f}")
        return seconds

    with tempfile.TemporaryDirectory() as scratch:
        few = Course(Path(scratch) / "few", assignment, count)
        console.print(f"stock nbgrader grades {count} submissions (about 10 s each) ...")
        row("nbgrader autograde", "nbgrader", "autograde", few, count)
        shutil.rmtree(few.root / "autograded")
        row("autograder grade", "autograder", "grade", few, count)
        many = Course(Path(scratch) / "many", assignment, arguments.many)
        seconds = row("autograder grade", "autograder", "grade", many, arguments.many)
        console.print(table)
        console.print(f"student code took {100 * student_share(many, seconds):.0f} % of our workers' time")
        profile(many)
    return 0


if __name__ == "__main__":
    sys.exit(main())
