"""The course folder as nbgrader sees it: configuration and directories."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from jupyter_core.paths import jupyter_config_path
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config, PyFileConfigLoader

from autograder.grading.secret import own_folder

SETTINGS = "nbgrader_config.py"


class Course:
    """A course folder. `config` is what nbgrader's own commands would load there."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.own = own_folder(self.root)
        self.config = Config()
        for folder in (*reversed(jupyter_config_path()), str(self.root)):
            if (Path(folder) / SETTINGS).is_file():
                self.config.merge(PyFileConfigLoader(SETTINGS, path=folder).load_config())
        self.directory = CourseDirectory(config=self.config)
        if "root" not in self.config.CourseDirectory:
            self.directory.root = str(self.root)

    def folder(self, step: str, student: str, assignment: str) -> Path:
        """Return the folder of a student's assignment in one of nbgrader's steps, for example "submitted"."""
        return Path(self.directory.format_path(step, student, assignment))

    def students(self, assignment: str) -> list[str]:
        """Return the students who handed something in for the assignment, sorted."""
        pattern = self.folder(self.directory.submitted_directory, "{student}", assignment)
        base, tail = str(pattern).split("{student}", 1)
        names = os.listdir(base) if os.path.isdir(base) else []
        return sorted(
            name for name in names if not name.startswith(".") and os.path.lexists(base + name + tail)
        )

    @contextlib.contextmanager
    def only_writer(self) -> Iterator[None]:
        """Hold the course's lock. Raises BlockingIOError when another grading run holds it."""
        with open(self.own / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
