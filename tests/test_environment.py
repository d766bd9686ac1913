"""Lock, conda environment and package ask for the same things; set-up explains what stops it."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
CONDA = (ROOT / "environment.yml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lock: str) -> set[str]:
    """Return every `name==version ; marker` of a lock."""
    return {line.removesuffix("\\").strip() for line in lock.splitlines() if re.match(r"\w", line)}


def conda_pip_section(environment: str) -> list[str]:
    """Return the lines that conda hands to pip."""
    dependencies = yaml.safe_load(environment)["dependencies"]
    return next(entry["pip"] for entry in dependencies if isinstance(entry, dict))


def drift(lock: str, environment: str) -> set[str]:
    """Return what only one of the two installs."""
    return pins(lock) ^ (set(conda_pip_section(environment)) - {"-e ."})


def test_conda_environment_installs_the_pins_of_the_lock():
    assert drift(LOCK, CONDA) == set(), "requirements.lock and environment.yml differ: run `make lock`"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(r"nbgrader==[\d.]+", "nbgrader==0.9.4", id="another version"),
        pytest.param(r"      - rich==.*\n", "", id="a pin is missing"),
        pytest.param(r"      - rich==.*\n", r"\g<0>      - six==1.16.0.1\n", id="a pin too many"),
        pytest.param(r" ; sys_platform == 'darwin'", "", id="a marker is missing"),
    ],
)
def test_drift_is_found(old: str, new: str):
    changed, count = re.subn(old, new, CONDA, count=1)
    assert count == 1
    assert drift(LOCK, changed)


def test_conda_environment_installs_the_course_itself():
    assert conda_pip_section(CONDA)[0] == "-e ."


def test_conda_environment_has_a_python_that_the_package_accepts():
    python = next(
        entry for entry in yaml.safe_load(CONDA)["dependencies"] if str(entry).startswith("python=")
    )
    assert python.removeprefix("python=") in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_every_pin_has_a_hash():
    blocks = re.split(r"\n(?=\w)", LOCK.strip())
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("text", [LOCK, CONDA], ids=["requirements.lock", "environment.yml"])
def test_names_no_address(text: str):
    assert not re.search(r"://|index-url|find-links", text)


@pytest.mark.parametrize(
    "wanted",
    [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]],
    ids=lambda text: re.split(r"\W", text)[0],
)
def test_every_dependency_is_pinned_to_a_version_it_accepts(wanted: str):
    requirement = Requirement(wanted)
    locked = [Requirement(pin) for pin in pins(LOCK)]
    found = [pin for pin in locked if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert found
    assert all(str(pin.specifier).removeprefix("==") in requirement.specifier for pin in found)


def test_an_old_python_is_refused_with_the_fix(tmp_path: Path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase $1 in --version) echo "Python 3.9.2";; *) exit 1;; esac\n')
    old.chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    made = subprocess.run(
        ["make", f"PYTHON={old}", "setup"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert made.returncode != 0
    assert "Python 3.11 or newer is needed" in made.stderr
    assert "Python 3.9.2" in made.stderr
    assert "make PYTHON=" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_make_target_is_explained():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.findall(r"^  make ([\w-]+)", listed.stdout, re.MULTILINE) == phony
