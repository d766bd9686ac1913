"""Makes `assignments/<assignment>/` from its source and its specification.

nbgrader's own GenerateAssignment does it, so that its gradebook knows cells and points. The same source gives
the same bytes, so that drift can be detected.
"""

import logging
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config, PyFileConfigLoader

from autograder import pack
from autograder.release.cases import equivalent, public_cases
from autograder.release.checks import checks_module
from autograder.release.source import notebook
from autograder.spec import Assignment

CASES = "cases.safetensors"
RELEASED = "_build/release"  # nbgrader deletes its target when it fails, so it does not write to assignments/


def release(assignment: Assignment, course_dir: Path) -> Path:
    """Make `assignments/<assignment>/`, and enter its cells and points in the gradebook. Return that folder.

    Raises FileNotFoundError without a source or nbgrader_config.py, and ValueError when the source has wrong
    marks or nbgrader refuses.
    """
    config = _config(course_dir)
    target = course_dir / str(config.CourseDirectory.release_directory) / assignment.name
    _make(assignment, course_dir, course_dir, config, database=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(course_dir / RELEASED / assignment.name, target)
    return target


def drift(assignment: Assignment, course_dir: Path) -> list[str]:
    """Return the files of `assignments/<assignment>/` that a release would add, change or delete."""
    config = _config(course_dir)
    released = Path(str(config.CourseDirectory.release_directory)) / assignment.name
    with tempfile.TemporaryDirectory() as scratch:
        _make(assignment, course_dir, Path(scratch), config, database=False)
        fresh = _contents(Path(scratch) / RELEASED / assignment.name)
    kept = _contents(course_dir / released)
    names = sorted(fresh.keys() | kept.keys())
    return [str(released / name) for name in names if fresh.get(name) != kept.get(name)]


def _config(course_dir: Path) -> Config:
    path = course_dir / "nbgrader_config.py"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; run from the course's folder, or name it")
    config: Config = PyFileConfigLoader(path.name, path=str(course_dir)).load_config()
    return config


def _make(assignment: Assignment, course_dir: Path, root: Path, config: Config, database: bool) -> None:
    """Make the folder under `root`, from the source in `course_dir`."""
    path = course_dir / "solutions" / f"{assignment.name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; a source has the name of its specification")
    made = root / str(config.CourseDirectory.source_directory) / assignment.name
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    nbformat.write(notebook(path, assignment), made / f"{assignment.name}.ipynb")
    (made / "checks.py").write_text(checks_module(assignment), encoding="utf-8")
    cases = pack.pack(public_cases(assignment))
    before = course_dir / str(config.CourseDirectory.release_directory) / assignment.name / CASES
    if before.is_file() and equivalent(before.read_bytes(), cases):
        cases = before.read_bytes()
    (made / CASES).write_bytes(cases)
    _generate(assignment, root, config, database)


def _generate(assignment: Assignment, root: Path, config: Config, database: bool) -> None:
    """Run nbgrader's GenerateAssignment. Raises ValueError with the reason when it fails."""
    config = config.copy()
    config.CourseDirectory.root = str(root.resolve())
    config.CourseDirectory.release_directory = RELEASED
    config.CourseDirectory.assignment_id = assignment.name
    config.GenerateAssignment.update(force=True, no_database=not database)
    config.SaveCells.enabled = database
    converter = GenerateAssignment(coursedir=CourseDirectory(config=config), config=config)
    said = _Messages()
    converter.log = said.logger
    try:
        converter.start()
    except NbGraderException as problem:
        raise ValueError(f"nbgrader does not release {assignment.name}: {said.reason or problem}") from None


class _Messages(logging.Handler):
    """Keeps the reason that nbgrader logs; its exception does not carry it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reason = ""
        self.logger = logging.Logger("nbgrader")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the last line of a traceback."""
        if "Traceback" in record.getMessage():
            self.reason = record.getMessage().strip().splitlines()[-1]


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in a folder."""
    if not folder.is_dir():
        return {}
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
