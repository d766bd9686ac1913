"""The folder in the course where grading keeps what is its own, and the course's secret in it."""

import contextlib
import os
import secrets
import sys
from pathlib import Path

FOLDER = ".autograder"
SHORTEST = 16


def own_folder(course: Path) -> Path:
    """Return the course's folder for the secret and the verdicts, made at first use; git ignores it."""
    folder = course / FOLDER
    if not folder.is_dir():
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


def secret(course: Path) -> bytes:
    """Return the secret that hidden cases are drawn from.

    It comes from AUTOGRADER_SECRET, else from the file `.autograder/secret`, which the first use makes.
    Raises ValueError when it is too short to be one.
    """
    given = os.environ.get("AUTOGRADER_SECRET", "").encode()
    if given:
        return _long_enough(given, "AUTOGRADER_SECRET is too short; give it 16 characters or more")
    path = own_folder(course) / "secret"
    with contextlib.suppress(FileExistsError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(secrets.token_hex(32) + "\n")
        notice = f"Made the course's secret, {path}. Keep it: another one draws other hidden cases."
        print(notice, file=sys.stderr)
    return _long_enough(
        path.read_bytes().strip(), f"the secret in {path} is too short; delete it for a new one"
    )


def _long_enough(value: bytes, otherwise: str) -> bytes:
    if len(value) < SHORTEST:
        raise ValueError(otherwise)
    return value
