"""What the documents show is true: commands run, links and places exist, options are there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}
README = TEXTS["README.md"]
CI = (ROOT / ".ci" / "run").read_text()
COURSE = ["assignments", "autograder", "nbgrader_config.py", "solutions"]

# Every item of the outline that the course grew from, as the README's table names it.
OUTLINE = [
    "Overview",
    "1. Image patchification",
    "2. Patch embedding, z_0",
    "3. Transformer encoder: MSA",
    "3. Transformer encoder: LN, MLP, residuals",
    "3. Final output y = LN(z_L⁰)",
    "Variants B/16, L/16, H/14",
    "File structure: README.md",
    "File structure: pytorch_lowlevel/vit_lowlevel.py",
    "File structure: paper/vit_paper.py",
    "Exercise 01: patch embedding visualization",
    "Exercise 02: attention maps",
    "Concept 1: CNN vs ViT",
    "Concept 2: position embedding (1-D learned, 2-D, sinusoidal)",
    "Concept 3: [CLS] token vs global average pooling",
    "Level 2: low-level PyTorch",
    "Level 3: exact paper specification",
    "Level 3: JFT/ImageNet pre-training",
    "Level 3: fine-tuning code",
    "Level 4: analyse timm",
    "Level 4: analyse Hugging Face ViT",
    "Checklist: patch embedding formula",
    "Checklist: role of position embedding",
    "Checklist: role of the [CLS] token",
    "Checklist: pros and cons compared to CNN",
    "Checklist: visualize attention maps",
    "Checklist: fine-tuning strategy",
    "References",
    "Next: training optimization",
]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, without the indentation of a list they stand in."""
    pattern = rf"^( *)```{language}\n(.*?)^\1```$"
    found = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def commands(text: str) -> list[str]:
    """Return each command that a document shows in a block of shell commands."""
    lines = "".join(blocks(text, "(?:sh|bash|shell|console)")).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def run_by_ci(command: str) -> bool:
    """Return whether `.ci/run` runs the command: it stands there alone or as a whole argument list."""
    return re.search(rf"(^|\s){re.escape(command)}$", CI, re.MULTILINE) is not None


def table() -> dict[str, str]:
    """Return the place of each item in the README's table."""
    return dict(re.findall(r"^\| (?!item of|---)(.+?) \| (.+?) \|$", README, re.MULTILINE))


def environment() -> dict[str, str]:
    """Return the environment of a reader whose virtual environment is active."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of what an instructor works with."""
    folder = tmp_path_factory.mktemp("course")
    for name in COURSE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def test_the_instructors_commands_work_in_the_order_shown(course: Path):
    shown = [command for command in commands(README) if not run_by_ci(command)]
    assert "autograder grade patches" in shown
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(shown)],
        cwd=course,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for written in (
        "autograded/ada/patches/patches.ipynb",
        "feedback/ada/patches/patches.html",
        "gradebook.db",
        "grades.csv",
    ):
        assert (course / written).exists(), f"{written} is missing after the README's commands"


@pytest.mark.parametrize("document", [name for name in TEXTS if name != "README.md"])
def test_every_other_command_shown_is_run_by_ci(document: str):
    assert [command for command in commands(TEXTS[document]) if not run_by_ci(command)] == []


def test_a_command_that_nothing_runs_is_found():
    assert commands("text\n\n   ```sh\n   make nonsense\n   ```\n") == ["make nonsense"]
    assert not run_by_ci("make nonsense")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([\w-]+)", "\n".join(TEXTS.values())))))
def test_every_make_target_named_exists(target: str):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"(?:`|^ *)autograder ([a-z]+)", "\n".join(TEXTS.values()), re.MULTILINE)))
)
def test_every_autograder_command_named_has_help(name: str):
    done = subprocess.run(
        [sys.executable, "-m", "autograder", name, "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_option_that_gives_the_sandbox_up_exists():
    done = subprocess.run(
        [sys.executable, "-m", "autograder", "grade", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "--unsafe-no-sandbox" in README
    assert "--unsafe-no-sandbox" in done.stdout


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_configuration_shown_names_settings_that_exist(block: str):
    import nbgrader.coursedir
    import nbgrader.plugins

    for owner, setting in re.findall(r"^c\.(\w+)\.(\w+) =", block, re.MULTILINE):
        module = nbgrader.coursedir if owner == "CourseDirectory" else nbgrader.plugins
        assert setting in getattr(module, owner).class_traits(config=True)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_to_a_file_leads_somewhere(document: str):
    targets = re.findall(r"\]\((?!\w+:)([^)#]+)", (ROOT / document).read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_table_has_every_item_of_the_outline():
    assert list(table()) == OUTLINE


@pytest.mark.parametrize("item", OUTLINE)
def test_every_place_in_the_table_exists_unless_it_is_planned(item: str):
    place = table()[item]
    planned = re.findall(r"`([^`]+)`", "".join(re.findall(r"\(`[^)]*\)", place)))
    here = [name for name in re.findall(r"(?:`|\]\()([\w./]+)[`)]", place) if name not in planned]
    assert here or planned
    assert [name for name in here if not (ROOT / name).exists()] == []
    assert [name for name in planned if (ROOT / name).exists()] == [], (
        "no longer planned: take the brackets away"
    )
