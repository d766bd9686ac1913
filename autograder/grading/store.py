"""Verdicts on disk, by a hash of everything that a verdict depends on.

A run that was killed resumes from here, and a submission that did not change is not graded twice. A verdict
keeps points that wait for a GPU, so one machine can leave them to another.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

import autograder
from autograder.grading.judging import Result
from autograder.grading.submission import Submission
from autograder.grading.verdicts import Verdict
from autograder.sandbox import CellResult

SOURCES = (
    "spec.py",
    "probes.py",
    "judge.py",
    "pack.py",
    "training_cases.py",
    "training_checks.py",
    "calibration.json",
    "reference",
    "reference/fractal_vit.safetensors",
    "specs",  # all of them: they use parts of one another
    "sandbox",
    "grading",
)


class Store:
    """The verdicts of one assignment in one folder."""

    def __init__(self, folder: Path, assignment: str, secret: bytes) -> None:
        self._folder = folder
        self._assignment = assignment
        digest = hashlib.sha256()
        for part in (*_sources(), assignment.encode(), secret, torch.__version__.encode()):
            digest.update(len(part).to_bytes(8, "little") + part)
        self._base = digest

    def key(self, submission: Submission) -> str:
        """Return the hash under which the verdict on a submission is kept."""
        digest = self._base.copy()
        digest.update(Path(submission.file).suffix.encode() + b"\0" + submission.data)
        return digest.hexdigest()

    def load(self, submission: Submission) -> Verdict | None:
        """Return the stored verdict, or None where there is none."""
        try:
            kept = json.loads(self._path(submission).read_bytes())
            results = {name: Result(**result) for name, result in kept["exercises"].items()}
            cells = [CellResult(**cell) for cell in kept["cells"]]
            seconds = kept["student_seconds"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Verdict(submission.file, self._assignment, results, cells, submission.notes, seconds)

    def save(self, submission: Submission, verdict: Verdict) -> None:
        """Keep a verdict; a reader sees all of it or nothing."""
        kept = {
            "exercises": {name: asdict(result) for name, result in verdict.exercises.items()},
            "cells": [asdict(cell) for cell in verdict.cells],
            "student_seconds": verdict.student_seconds,
        }
        write(self._path(submission), json.dumps(kept))

    def _path(self, submission: Submission) -> Path:
        return self._folder / f"{self.key(submission)}.json"


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file as a whole: under another name first, then moved into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(handle, mode)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _sources() -> Iterator[bytes]:
    root = Path(autograder.__file__).parent
    for part in (root / name for name in SOURCES):
        for path in sorted(part.rglob("*.py")) if part.is_dir() else [part]:
            yield str(path.relative_to(root)).encode()
            yield path.read_bytes()
