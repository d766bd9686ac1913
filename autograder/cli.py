"""The `autograder` command: reads the command line, calls the part that does the work, tells what failed."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from autograder import commands
from autograder.commands import CANNOT_START, FAULTY, NO_SANDBOX, STOPPED, Stop

EXIT_CODES = """exit codes:
  0    done; wrong answers of students are no failure
  1    done as far as possible: something in the work itself failed, and is named
  2    could not start: a wrong argument, an unknown assignment, no release, no database
  3    student code cannot be isolated on this machine (see `autograder doctor`)
  130  stopped with Ctrl-C; run the same command again to go on
"""


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
    from autograder.sandbox import Unavailable

    code = CANNOT_START
    if isinstance(error, Unavailable):
        code, text = NO_SANDBOX, f"student code cannot be isolated on this machine: {error}"
    elif isinstance(error, BlockingIOError):
        text = "another `autograder grade` is at work in this course; wait until it is done"
    elif type(error).__module__.startswith("sqlalchemy"):
        text = f"the gradebook cannot be used: {str(error).splitlines()[0]}"
    elif isinstance(error, ValueError | OSError):
        text = str(error)
    else:
        code = FAULTY
        text = f"a fault in the autograder: {type(error).__name__}: {error} (AUTOGRADER_DEBUG=1 shows where)"
    print(f"autograder: {text}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autograder",
        description="Releases the assignments of the Vision Transformer course and grades what comes back.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], short: str, more: str
    ) -> argparse.ArgumentParser:
        made = choices.add_parser(
            name, help=short, description=f"{short[0].upper()}{short[1:]}.\n\n{more}", epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        made.set_defaults(run=run)
        return made

    made = command(
        "release",
        commands.release,
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
        commands.check,
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
        commands.grade,
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
    made.add_argument(
        "--pending",
        action="store_true",
        help="only complete points that wait for a GPU, on a machine that has one",
    )
    _course(made)
    _sandbox(made)

    made = command(
        "feedback",
        commands.feedback,
        "write the pages that students get back",
        "Runs nbgrader's generate_feedback: autograded/ to feedback/STUDENT/ASSIGNMENT/ASSIGNMENT.html.",
    )
    made.add_argument("assignment", metavar="ASSIGNMENT", help="such as: patches")
    made.add_argument("--student", default="*", metavar="ID", help="only this student")
    _course(made)

    made = command(
        "report",
        commands.report,
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
        commands.doctor,
        "tell what is installed and what is missing",
        "Looks at Python, torch and its devices, bubblewrap, nbgrader, the database and the secret.",
    )
    made = command(
        "mutation",
        commands.mutation,
        "show which known mistakes the checks catch",
        """Runs every known mistake and every independent right answer of the specifications
through the hidden cases and through the check at home, and prints the table.""",
    )
    made.add_argument("rest", nargs=argparse.REMAINDER, metavar="ASSIGNMENT", help="only these assignments")
    made = command(
        "demo",
        commands.demo,
        "grade a made-up class, from release to book",
        """Run it in the course's repository. Releases assignments to 24 made-up students, fills their
notebooks, grades them, writes feedback and reports, and builds the book; all under _build/.""",
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
