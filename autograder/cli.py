"""The `autograder` command: reads the command line, calls the part that does the work, tells what failed."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autograder.sandbox import Sandbox

DONE, FAULTY, CANNOT_START, NO_SANDBOX, STOPPED = 0, 1, 2, 3, 130
EXIT_CODES = """exit codes:
  0    done; wrong answers of students are no failure
  1    done as far as possible: something in the work itself failed, and is named
  2    could not start: a wrong argument, an unknown assignment, no release, no database
  3    student code cannot be isolated on this machine (see `autograder doctor`)
  130  stopped with Ctrl-C; run the same command again to go on
"""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except Stop as problem:
        print(f"autograder: {problem}", file=sys.stderr)
        return problem.code
    except KeyboardInterrupt:
        print("\nautograder: stopped. Run the same command again to go on.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of the pipe left; nothing to say
        return FAULTY
    except Exception as error:
        if os.environ.get("AUTOGRADER_DEBUG"):
            raise
        return _told(error)


def _told(error: Exception) -> int:
    """Say what an expected kind of fault means; return the exit code."""
    import sqlalchemy

    from autograder.grading.gradebook import NotReleased
    from autograder.sandbox import Unavailable

    code = CANNOT_START
    if isinstance(error, Unavailable):
        code, text = NO_SANDBOX, f"student code cannot be isolated on this machine: {error}"
    elif isinstance(error, BlockingIOError):
        text = "another `autograder grade` is at work in this course; wait until it is done"
    elif isinstance(error, sqlalchemy.exc.SQLAlchemyError):
        text = f"the gradebook cannot be used: {str(error).splitlines()[0]}"
    elif isinstance(error, NotReleased | ValueError | OSError):
        text = str(error)
    else:
        code, text = (
            FAULTY,
            f"a fault in the autograder: {type(error).__name__}: {error} (AUTOGRADER_DEBUG=1 shows where)",
        )
    print(f"autograder: {text}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autograder",
        description="Releases the assignments of the Vision Transformer course and grades what comes back.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], short: str, more: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=short, description=f"{short[0].upper()}{short[1:]}.\n\n{more}", epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        made.set_defaults(run=run)
        return made

    made = command(
        "release",
        _release,
        "make what students download",
        """Turns solutions/ASSIGNMENT.py into assignments/ASSIGNMENT/ and enters cells and points
in nbgrader's gradebook. Without ASSIGNMENT: all of them.""",
    )
    made.add_argument("assignment", nargs="*", metavar="ASSIGNMENT", help="such as: patches")
    made.add_argument(
        "--check", action="store_true", help="change nothing; fail when assignments/ differs from its source"
    )
    _course(made)

    made = command(
        "check",
        _check,
        "grade files, touching no gradebook",
        """Grades notebooks (.ipynb) or Python files (.py) and prints what happened. A .py file may
define only some of the exercises; the others are missing.""",
    )
    made.add_argument("assignment", metavar="ASSIGNMENT", help="such as: patches")
    made.add_argument("file", nargs="+", metavar="FILE", help="a notebook or a Python file")
    made.add_argument(
        "--json", action="store_true", help="print one JSON object a file, one a line, in the order given"
    )
    _course(made)
    _sandbox(made)

    made = command(
        "grade",
        _grade,
        "grade a class",
        """Grades submitted/*/ASSIGNMENT/ and writes nbgrader's gradebook and autograded/. What did not
change since the last run is not graded again. Manual points and comments stay.""",
    )
    made.add_argument("assignment", metavar="ASSIGNMENT", help="such as: patches")
    made.add_argument(
        "--student",
        action="append",
        default=[],
        metavar="ID",
        help="only this student; can be given several times",
    )
    made.add_argument("--force", action="store_true", help="grade again what has a stored verdict")
    _course(made)
    _sandbox(made)

    made = command(
        "feedback",
        _feedback,
        "write the pages that students get back",
        "Runs nbgrader's generate_feedback: autograded/ to feedback/STUDENT/ASSIGNMENT/ASSIGNMENT.html.",
    )
    made.add_argument("assignment", metavar="ASSIGNMENT", help="such as: patches")
    made.add_argument("--student", default="*", metavar="ID", help="only this student")
    _course(made)

    made = command(
        "report",
        _report,
        "show how the class did",
        """Prints how scores spread, how each exercise went and the most common mistakes, as of the
last `autograder grade`. With the options it writes files instead; `-` is the terminal.""",
    )
    made.add_argument("assignment", metavar="ASSIGNMENT", help="such as: patches")
    for form in ("json", "csv", "html"):
        made.add_argument(f"--{form}", metavar="FILE", help=f"write the report as {form.upper()}")
    _course(made)

    command(
        "doctor",
        _doctor,
        "tell what is installed and what is missing",
        "Looks at Python, torch and its devices, bubblewrap, nbgrader, the database and the secret.",
    )
    made = command(
        "mutation",
        _mutation,
        "show which known mistakes the checks catch",
        """Runs every known mistake and every independent right answer of the specifications
through the hidden cases and through the check at home, and prints the table.""",
    )
    made.add_argument("rest", nargs=argparse.REMAINDER, metavar="ASSIGNMENT", help="only these assignments")
    made = command(
        "demo",
        _demo,
        "grade a made-up class, from release to book",
        "Run it in the course's repository. Releases assignments to 24 made-up students, fills their\nnotebooks, grades them, writes feedback and reports, and builds the book; all under _build/.",
    )
    made.add_argument("assignment", nargs="*", default=["patches", "patch_embedding"], metavar="ASSIGNMENT",
                      help="such as: patches (default: the first two)")  # fmt: skip
    return parser


def _course(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--course",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="the course folder, with nbgrader_config.py (default: here)",
    )


def _sandbox(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--workers",
        type=_positive,
        default=cores,
        metavar="N",
        help="submissions at a time (default: %(default)s, the cores here)",
    )
    parser.add_argument(
        "--unsafe-no-sandbox",
        action="store_true",
        help="run student code without isolation: only for code you wrote yourself",
    )


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return number


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


def _release(arguments: argparse.Namespace) -> int:
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


def _check(arguments: argparse.Namespace) -> int:
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


def _grade(arguments: argparse.Namespace) -> int:
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
            course, assignment, start, arguments.workers, arguments.force, arguments.student,
            step=lambda done, total: progress.update(bar, completed=done, total=total),
        )  # fmt: skip
        seconds = time.perf_counter() - begin
    if not outcome.verdicts and not outcome.failures:
        where = course.folder(course.directory.submitted_directory, "STUDENT", assignment.name)
        raise Stop(f"nothing was handed in: {where} is where a student's {assignment.name}.ipynb belongs")
    print(class_table(outcome.verdicts))
    count = len(outcome.verdicts)
    print(
        f"{count} submissions in {seconds:.1f} s, {outcome.stored} of them unchanged since they were graded."
    )
    for student, problem in sorted(outcome.failures.items()):
        print(f"autograder: {printable(student)} could not be graded: {printable(problem)}", file=sys.stderr)
    return FAULTY if outcome.failures else DONE


def _feedback(arguments: argparse.Namespace) -> int:
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


def _report(arguments: argparse.Namespace) -> int:
    from autograder.grading import report
    from autograder.grading.secret import own_folder
    from autograder.spec import load

    assignment = load(arguments.assignment)
    verdicts = report.kept_verdicts(own_folder(_folder(arguments)), assignment.name)
    if not verdicts:
        raise Stop(f"nothing has been graded yet; first run: autograder grade {assignment.name}")
    made = report.Report(assignment, verdicts)
    forms = {"json": report.as_json, "csv": report.as_csv, "html": report.as_html}
    wanted = {form: getattr(arguments, form) for form in forms if getattr(arguments, form)}
    for form, target in wanted.items():
        text = forms[form](made)
        if target == "-":
            sys.stdout.write(text)
        else:
            Path(target).write_text(text, encoding="utf-8")
            print(target)
    if not wanted:
        sys.stdout.write(report.as_text(made))
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from autograder.doctor import doctor

    return doctor()


def _mutation(arguments: argparse.Namespace) -> int:
    from autograder.mutation import main as mutation

    return mutation(arguments.rest)


def _demo(arguments: argparse.Namespace) -> int:
    from autograder.demo import main as demo

    return demo(arguments.assignment)
