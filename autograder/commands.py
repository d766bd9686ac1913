"""What each `autograder` command does. Parts that take seconds to import are imported where they are used."""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autograder.sandbox import Sandbox
    from autograder.spec import Assignment

DONE, FAULTY, CANNOT_START, NO_SANDBOX, STOPPED = 0, 1, 2, 3, 130
LOUD = """
  ############################################################################
  #  --unsafe-no-sandbox: student code runs with YOUR rights on THIS machine. #
  #  It can read and delete your files and see the hidden cases.              #
  #  Use it for code that you wrote yourself, never for a class.              #
  ############################################################################
"""


class Stop(Exception):
    """Ends the command with a sentence and an exit code."""

    def __init__(self, message: str, code: int = CANNOT_START) -> None:
        super().__init__(message)
        self.code = code


def _folder(arguments: argparse.Namespace) -> Path:
    course: Path = arguments.course
    if not course.is_dir():
        raise Stop(f"there is no folder {course}; --course names the course's folder")
    return course


def _starter(arguments: argparse.Namespace, allow: frozenset[str]) -> Callable[[], "Sandbox"]:
    """Return what starts a sandbox; refuse here and now where none can be had."""
    import torch

    from autograder.sandbox import Sandbox

    torch.set_num_threads(1)  # workers keep the cores busy; the reference's tensors are small
    unsafe: bool = arguments.unsafe_no_sandbox
    if unsafe:
        print(LOUD, file=sys.stderr)
    return lambda: Sandbox(allow=allow, unsafe=unsafe)


def release(arguments: argparse.Namespace) -> int:
    """Make the folders that students download, or compare them with their sources."""
    from autograder.release import drift, release
    from autograder.spec import load, names

    course = _folder(arguments)
    differing = 0
    for name in arguments.assignment or names():
        if arguments.check:
            changed = drift(load(name), course)
            differing += len(changed)
            print(
                *(f"{file} differs from its source" for file in changed)
                if changed
                else [f"{name}: up to date"],
                sep="\n",
            )
        else:
            print(release(load(name), course))
    if differing:
        print("Run `autograder release` and commit assignments/.", file=sys.stderr)
    return FAULTY if differing else DONE


def check(arguments: argparse.Namespace) -> int:
    """Grade files and print a verdict each."""
    from autograder.grading.pool import Pool
    from autograder.grading.secret import secret
    from autograder.grading.show import as_text, one_line
    from autograder.grading.submission import read
    from autograder.grading.verdicts import Grader
    from autograder.spec import load

    assignment = load(arguments.assignment)
    grader = Grader(assignment, secret(_folder(arguments)))
    workers = min(arguments.workers, len(arguments.file))
    failed = False
    with Pool(grader, workers, _starter(arguments, assignment.allow)) as pool:
        for file, verdict in pool.ordered(lambda file: pool.grade(read(file))[0], arguments.file):
            if isinstance(verdict, Exception):
                failed = True
                print(
                    f"autograder: {file} could not be graded: {type(verdict).__name__}: {verdict}",
                    file=sys.stderr,
                )
            else:
                print(one_line(verdict) if arguments.json else as_text(verdict), flush=True)
    return FAULTY if failed else DONE


def grade(arguments: argparse.Namespace) -> int:
    """Grade a class into the gradebook and print a table."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from autograder.grading import bulk
    from autograder.grading.course import Course
    from autograder.grading.sanitise import printable
    from autograder.grading.show import class_table
    from autograder.spec import load

    assignment = load(arguments.assignment)
    course_folder = _folder(arguments)
    start = _starter(arguments, assignment.allow)
    students = _pending(arguments, assignment) if arguments.pending else arguments.student
    if arguments.pending and not students:
        print("no points wait for a GPU")
        return DONE
    columns = (
        TextColumn("Grading {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with chdir(course_folder), Progress(*columns, console=Console(stderr=True)) as progress:
        course = Course(Path())
        bar = progress.add_task(assignment.name, total=None)
        begin = time.perf_counter()
        outcome = bulk.grade(
            course, assignment, start, arguments.workers, arguments.force, students,
            step=lambda done, total: progress.update(bar, completed=done, total=total),
        )  # fmt: skip
        seconds = time.perf_counter() - begin
    if not outcome.verdicts and not outcome.failures:
        where = course.folder(course.directory.submitted_directory, "STUDENT", assignment.name)
        raise Stop(f"nothing was handed in: {where} is where a student's {assignment.name}.ipynb belongs")
    print(class_table(outcome.verdicts))
    count = len(outcome.verdicts)
    print(f"{count} submissions in {seconds:.1f} s, {outcome.stored} of them the same as ones graded before.")
    for student, problem in sorted(outcome.failures.items()):
        print(f"autograder: {printable(student)} could not be graded: {printable(problem)}", file=sys.stderr)
    return FAULTY if outcome.failures else DONE


def _pending(arguments: argparse.Namespace, assignment: "Assignment") -> list[str]:
    """Return the students with points that wait for a GPU. Raises Stop where they cannot be checked."""
    from autograder.grading import gpu, report
    from autograder.grading.secret import own_folder

    if arguments.force:
        raise Stop("--pending completes what waits and --force grades anew; give one of them")
    for exercise in assignment.exercises:
        if gpu.points(exercise) and (problem := gpu.obstacle(exercise)):
            raise Stop(f"{exercise.name} cannot be checked on a GPU here: {problem}")
    kept = report.kept_verdicts(own_folder(_folder(arguments)), assignment.name)
    return [
        student
        for student, verdict in kept.items()
        if any(each["status"] == "pending" for each in verdict["exercises"].values())
        and (not arguments.student or student in arguments.student)
    ]


def feedback(arguments: argparse.Namespace) -> int:
    """Write feedback pages."""
    from autograder.grading.course import Course
    from autograder.grading.feedback import generate
    from autograder.spec import load

    assignment = load(arguments.assignment)
    with chdir(_folder(arguments)):
        written, problem = generate(Course(Path()), assignment.name, arguments.student)
    print(f"{len(written)} feedback pages" + (f", such as {written[0]}" if written else ""))
    if problem:
        print(f"autograder: {problem}", file=sys.stderr)
    return FAULTY if problem else DONE


def report(arguments: argparse.Namespace) -> int:
    """Print the class report, or write it to files."""
    from autograder.grading import report, report_forms
    from autograder.grading.secret import own_folder
    from autograder.spec import load

    assignment = load(arguments.assignment)
    verdicts = report.kept_verdicts(own_folder(_folder(arguments)), assignment.name)
    if not verdicts:
        raise Stop(f"nothing has been graded yet; first run: autograder grade {assignment.name}")
    made = report.Report(assignment, verdicts)
    forms = {"json": report_forms.as_json, "csv": report_forms.as_csv, "html": report_forms.as_html}
    wanted = {form: getattr(arguments, form) for form in forms if getattr(arguments, form)}
    for form, target in wanted.items():
        text = forms[form](made)
        if target == "-":
            sys.stdout.write(text)
        else:
            Path(target).write_text(text, encoding="utf-8")
            print(target)
    if not wanted:
        sys.stdout.write(report_forms.as_text(made))
    return DONE


def doctor(arguments: argparse.Namespace) -> int:
    """Tell what is installed and what is missing."""
    from autograder.doctor import doctor

    return doctor()


def mutation(arguments: argparse.Namespace) -> int:
    """Print which known mistakes the checks catch."""
    from autograder.mutation import main as mutation

    return mutation(arguments.rest)


def demo(arguments: argparse.Namespace) -> int:
    """Grade a made-up class."""
    from autograder.demo import main as demo

    return demo(arguments.assignment)
