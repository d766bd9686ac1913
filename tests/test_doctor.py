"""`autograder doctor` says what is missing, how to get it, and fails only where grading cannot work."""

import importlib.metadata
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from autograder import doctor
from autograder.sandbox import launch

POSTGRES = "postgresql+psycopg://teacher:hunter2@localhost:1/grades"


@pytest.fixture(autouse=True)
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty course folder, which is where commands look."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(look) -> doctor.Finding:
    """The last finding of one part: the one that decides."""
    return list(look())[-1]


def use_database(course: Path, url: str) -> None:
    (course / "nbgrader_config.py").write_text(f"c = get_config()\nc.CourseDirectory.db_url = {url!r}\n")


def test_every_part_is_reported(capsys: pytest.CaptureFixture[str]):
    doctor.doctor()
    printed = capsys.readouterr().out
    for part in (
        "Python",
        "torch",
        "CUDA",
        "bubblewrap",
        "sandbox",
        "nbgrader",
        "database",
        "secret",
        "Jupyter Book",
        "npm",
    ):
        assert part in printed


def test_exit_code_is_0_when_nothing_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([doctor.Finding(doctor.OK, "a", "b")]),))
    assert doctor.doctor() == 0
    assert "Everything" in capsys.readouterr().out


def test_a_note_is_no_failure(monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([doctor.Finding(doctor.NOTE, "a", "b")]),))
    assert doctor.doctor() == 0


def test_exit_code_is_1_and_the_part_is_named_when_there_is_a_problem(monkeypatch, capsys):
    finding = doctor.Finding(doctor.PROBLEM, "the part", "is not there", "get it")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([finding]),))
    assert doctor.doctor() == 1
    printed = capsys.readouterr().out
    assert "fix: get it" in printed
    assert "Problems: the part." in printed


def test_a_part_that_breaks_does_not_hide_the_others(monkeypatch, capsys):
    def broken():
        raise OSError("disk on fire")

    monkeypatch.setattr(doctor, "CHECKS", (broken, doctor.python))
    assert doctor.doctor() == 1
    printed = capsys.readouterr().out
    assert "disk on fire" in printed
    assert sys.prefix in printed


def test_without_bubblewrap_the_way_to_get_it_is_shown(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    finding = found(doctor.isolation)
    assert finding.state == doctor.PROBLEM
    assert "apt install bubblewrap" in finding.fix


def test_a_bubblewrap_that_cannot_isolate_is_a_problem(monkeypatch):
    """`false` stands for a bwrap that the kernel refuses."""
    monkeypatch.setattr(doctor, "bubblewrap", lambda: "/bin/false")
    monkeypatch.setattr(launch, "bubblewrap", lambda: "/bin/false")
    finding = found(doctor.isolation)
    assert finding.state == doctor.PROBLEM
    assert "user namespaces" in finding.fix


@pytest.mark.parametrize(
    ("version", "state"), [("0.9.5", doctor.OK), ("0.8.5", doctor.PROBLEM), ("0.10.0", doctor.PROBLEM)]
)
def test_nbgrader_must_be_a_version_that_was_tried(monkeypatch, version: str, state: str):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert found(doctor.nbgrader).state == state


def test_a_missing_torch_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = found(doctor.torch)
    assert finding.state == doctor.PROBLEM
    assert finding.fix == "make setup"


@pytest.mark.parametrize("seen", [True, False])
def test_a_missing_gpu_is_only_a_note(monkeypatch, seen: bool):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "a big one")
    (finding,) = (finding for finding in doctor.torch() if finding.part == "CUDA")
    assert finding.state == (doctor.OK if seen else doctor.NOTE)


def test_a_database_that_does_not_exist_yet_is_fine_and_is_not_created(course: Path):
    finding = found(doctor.database)
    assert finding.state == doctor.OK
    assert str(course / "gradebook.db") in finding.text
    assert not (course / "gradebook.db").exists()


def test_a_gradebook_is_opened_and_its_students_counted(course: Path):
    from nbgrader.api import Base, Student
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    engine = create_engine(f"sqlite:///{course}/gradebook.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Student(id="ada"))
        session.commit()
    assert "students: 1" in found(doctor.database).text


def test_a_file_that_is_no_database_is_reported(course: Path):
    (course / "gradebook.db").write_text("not a database, but long enough to have had a header " * 20)
    assert found(doctor.database).state == doctor.PROBLEM


def test_the_configured_database_is_the_one_that_is_looked_at(course: Path):
    sqlite3.connect(course / "other.db").close()
    use_database(course, f"sqlite:///{course}/other.db")
    assert "other.db opens" in found(doctor.database).text


@pytest.fixture
def unreachable(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostgreSQL server that refuses: the driver is made up, so that the test needs none."""
    import sqlalchemy

    def refuse(url):
        raise sqlalchemy.exc.OperationalError("connect", {}, Exception("connection refused"))

    use_database(course, POSTGRES)
    monkeypatch.setattr(sqlalchemy, "create_engine", refuse)


def test_a_server_that_does_not_answer_is_reported_without_its_password(unreachable: None):
    finding = found(doctor.database)
    assert finding.state == doctor.PROBLEM
    assert "connection refused" in finding.text
    assert "db_url" in finding.fix
    assert "hunter2" not in finding.text


def test_a_missing_driver_is_named_with_the_way_to_get_it(course: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    use_database(course, POSTGRES)
    finding = found(doctor.database)
    assert finding.state == doctor.PROBLEM
    assert finding.fix == "uv pip install psycopg"


@pytest.fixture
def secret(course: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("AUTOGRADER_SECRET", raising=False)
    (course / ".autograder").mkdir()
    path = course / ".autograder" / "secret"
    path.write_text("0123456789abcdef")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("mode", "state"),
    [(0o600, doctor.OK), (0o400, doctor.OK), (0o640, doctor.PROBLEM), (0o604, doctor.PROBLEM)],
)
def test_the_secret_must_be_private(secret: Path, mode: int, state: str):
    secret.chmod(mode)
    finding = found(doctor.secret)
    assert finding.state == state
    assert secret.read_text() not in finding.text


def test_a_missing_secret_is_fine_and_is_not_made(course: Path, monkeypatch):
    monkeypatch.delenv("AUTOGRADER_SECRET", raising=False)
    assert found(doctor.secret).state == doctor.OK
    assert list(course.iterdir()) == []


def test_a_secret_from_the_environment_is_named_but_not_shown(monkeypatch):
    monkeypatch.setenv("AUTOGRADER_SECRET", "sesame, sesame, open yourself")
    finding = found(doctor.secret)
    assert finding.state == doctor.OK
    assert finding.text == "AUTOGRADER_SECRET"


@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_short_secret_is_a_problem(secret: Path, monkeypatch, place: str):
    if place == "file":
        secret.write_text("short\n")
    else:
        monkeypatch.setenv("AUTOGRADER_SECRET", "short")
    assert found(doctor.secret).state == doctor.PROBLEM


def test_without_npm_only_the_book_is_lost(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    finding = found(doctor.book)
    assert finding.state == doctor.NOTE
    assert "make setup" in finding.fix
