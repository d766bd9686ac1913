"""Release: a source with two cell marks becomes the folder that a student downloads."""

import copy
import dataclasses
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbgrader.api import Gradebook

from autograder import pack, spec
from autograder.probes import Inputs, Outputs, manners
from autograder.release import drift, release
from autograder.release.checks import checks_module
from autograder.spec import Assignment, Exercise, Group, Mistake, edited

ROOT = Path(__file__).parent.parent
SOURCES = [name for name in spec.names() if (ROOT / "solutions" / f"{name}.py").is_file()]
RELEASED = [name for name in SOURCES if (ROOT / "assignments" / name).is_dir()]


# A tiny specification and its source


def halve(x: torch.Tensor, times: int) -> torch.Tensor:
    """Return x / 2 ** times."""
    if times < 0:
        raise ValueError(f"times must not be negative, got {times}")
    return x / 2**times


def twice_the_value(answer, inputs: Inputs) -> Outputs:
    """A probe of this specification's own; `LIMIT` has to come along."""
    return {"the result": LIMIT * answer(**inputs)}


LIMIT = 2.0


def peeking(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """A judge that may not be released: it contains the reference."""
    return None if yours["the result"].equal(edited(halve)) else "no"


HALVE = Exercise(
    name="halve",
    points=3,
    reference=halve,
    minutes=5,
    difficulty=1,
    importance=2,
    cases=(
        Group(
            "halves once", 1, (lambda draw: {"x": draw.normal(2, 3), "times": 1},), "Halves", twice_the_value
        ),
        Group("halves many times", 1.5, (lambda draw: {"x": draw.normal(3), "times": 4},), "Halves"),
        Group("has manners", 0.5, (lambda draw: {"x": draw.normal(2, 2), "times": 2},), "Manners", manners),
    ),
    mistakes=(Mistake("halved once only", edited(halve, ("2**times", "2")), "Look at `times`."),),
)
TOY = Assignment(name="toy", title="Halves", chapter="01_patches", exercises=(HALVE,))

SOURCE = """\
# %% [markdown]
# # Halves

# %%
from checks import check

# %% exercise="halve"
def halve(x, times):
    ### BEGIN SOLUTION
    if times < 0:
        raise ValueError(f"times must not be negative, got {times}")
    return x / 2**times
    ### END SOLUTION

# %% check="halve"
check(halve)

# %%
print(halve(8.0, 2))
"""


@pytest.fixture
def course(tmp_path):
    """Return the folder of a course with the toy source."""
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "toy.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Return a course's folder after one release; tests that use it change nothing."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    (folder / "solutions").mkdir()
    (folder / "solutions" / "toy.py").write_text(SOURCE)
    release(TOY, folder)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def notebook(folder, name="toy"):
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


# The folder that a student downloads


def test_a_release_holds_notebook_checks_and_cases(released):
    assert contents(released / "assignments" / "toy").keys() == {
        "toy.ipynb",
        "checks.py",
        "cases.safetensors",
    }


def test_the_model_answer_is_replaced_by_a_stub(released):
    (cell,) = [cell for cell in notebook(released / "assignments" / "toy").cells if cell.id == "halve"]
    assert cell.source == "def halve(x, times):\n    # Your code here\n    raise NotImplementedError"
    assert cell.metadata.nbgrader.solution
    assert "editable" not in cell.metadata


def test_the_check_cell_is_locked_and_carries_the_points_of_the_specification(released):
    (cell,) = [cell for cell in notebook(released / "assignments" / "toy").cells if cell.id == "check-halve"]
    assert cell.source == "check(halve)"
    assert (cell.metadata.nbgrader.grade_id, cell.metadata.nbgrader.points) == ("check-halve", 3)
    assert cell.metadata.nbgrader.locked
    assert cell.metadata.editable is False


def test_run_all_goes_on_after_cells_that_need_an_exercise_and_only_after_those(released):
    cells = [cell for cell in notebook(released / "assignments" / "toy").cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags") for cell in cells] == [
        None,
        None,
        ["raises-exception"],
        ["raises-exception"],
    ]


def test_points_and_minutes_stand_in_the_text(released):
    texts = [
        cell.source
        for cell in notebook(released / "assignments" / "toy").cells
        if cell.cell_type == "markdown"
    ]
    assert texts == [
        "# Halves\n\n1 exercise · 3 points · about 5 minutes",
        "**Exercise** `halve` · 3 points · about 5 minutes · difficulty 1 of 5 · importance 2 of 5",
    ]


def test_the_gradebook_knows_cells_and_points(released):
    with Gradebook(f"sqlite:///{released}/gradebook.db") as gradebook:
        cells = gradebook.find_notebook("toy", "toy").grade_cells
        assert [(cell.name, cell.max_score) for cell in cells] == [("check-halve", 3)]


def test_the_source_for_nbgrader_keeps_the_model_answer(released):
    assert "2**times" in (released / "_build" / "source" / "toy" / "toy.ipynb").read_text()


# The same source gives the same bytes


def test_a_second_release_changes_no_byte(released, course):
    release(TOY, course)
    release(TOY, course)
    assert contents(course / "assignments" / "toy") == contents(released / "assignments" / "toy")


def test_no_drift_after_a_release(released):
    assert drift(TOY, released) == []


@pytest.mark.parametrize(
    ("change", "files"),
    [
        (
            lambda course: (course / "solutions" / "toy.py").write_text(SOURCE.replace("Halves", "Parts")),
            ["toy.ipynb"],
        ),
        (lambda course: (course / "assignments" / "toy" / "checks.py").unlink(), ["checks.py"]),
        (lambda course: (course / "assignments" / "toy" / "notes.txt").write_text("mine"), ["notes.txt"]),
    ],
    ids=["the source changed", "a file is gone", "a file is new"],
)
def test_drift_names_the_files_that_differ(released, tmp_path, change, files):
    course = shutil.copytree(released, tmp_path / "course")
    change(course)
    assert drift(TOY, course) == [f"assignments/toy/{name}" for name in files]


def test_drift_sees_a_change_of_the_specification(released):
    harder = dataclasses.replace(HALVE, difficulty=4)
    assert drift(dataclasses.replace(TOY, exercises=(harder,)), released) == ["assignments/toy/toy.ipynb"]


@pytest.mark.parametrize(
    ("factor", "drifted"), [(1 + 1e-7, False), (1.1, True)], ids=["rounding", "another value"]
)
def test_cases_that_another_processor_rounds_differently_are_no_drift(released, tmp_path, factor, drifted):
    course = shutil.copytree(released, tmp_path / "course")
    path = course / "assignments" / "toy" / "cases.safetensors"
    data = pack.unpack(path.read_bytes())
    data["exercises"]["halve"]["cases"][0]["expected"]["the result"] *= factor
    path.write_bytes(pack.pack(data))
    assert bool(drift(TOY, course)) is drifted


# Sources that are wrong


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('check="halve"', 'chek="halve"', 'unknown cell mark chek="halve"'),
        (
            'exercise="halve"',
            'exercise="half"',
            'exercise="half": the specification has no such exercise; it has: halve',
        ),
        ('# %% exercise="halve"', "# %%", 'exercise="halve": no such cells; one is needed'),
        ('# %% check="halve"', "# %%", 'check="halve": no such cells; one is needed'),
        (
            "# %%\nprint",
            '# %% check="halve"\ncheck(halve)\n# %%\nprint',
            'check="halve": 2 such cells; one is needed',
        ),
        ("check(halve)\n", "check(halve, 'mine')\n", r"must hold the single line check\(halve\)"),
        (
            "    ### BEGIN SOLUTION\n",
            "",
            "needs its model answer between ### BEGIN SOLUTION and ### END SOLUTION",
        ),
        (
            "    ### END SOLUTION\n",
            "",
            "needs its model answer between ### BEGIN SOLUTION and ### END SOLUTION",
        ),
        ("print(", "### BEGIN SOLUTION\nprint(", "a solution block stands outside the exercise cells"),
        ("def halve(x", "def half(x", "the cell does not define halve"),
        ("def halve(x, times):", "def halve(x, times)", "is not Python: expected ':'"),
    ],
)
def test_a_wrong_source_is_refused_with_what_is_wrong(course, old, new, message):
    (course / "solutions" / "toy.py").write_text(SOURCE.replace(old, new))
    with pytest.raises(ValueError, match=message):
        release(TOY, course)


@pytest.mark.parametrize("name", ["nbgrader_config.py", "solutions/toy.py"])
def test_a_missing_file_is_named(course, name):
    (course / name).unlink()
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        release(TOY, course)


@pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's own way of adding a submission
def test_a_refusal_of_nbgrader_gives_its_reason_and_leaves_the_release_as_it_was(released, tmp_path):
    course = shutil.copytree(released, tmp_path / "course")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.add_student("ada")
        gradebook.add_submission("toy", "ada")
    renamed = SOURCE.replace("halve", "half")
    (course / "solutions" / "toy.py").write_text(renamed)
    half = dataclasses.replace(HALVE, name="half")
    with pytest.raises(ValueError, match=r"nbgrader does not release toy: .*Cannot add or remove cells"):
        release(dataclasses.replace(TOY, exercises=(half,)), course)
    assert contents(course / "assignments" / "toy") == contents(released / "assignments" / "toy")


# checks.py


def test_a_probe_of_the_specification_comes_along_with_what_it_needs():
    text = checks_module(TOY)
    assert "def twice_the_value(" in text
    assert "LIMIT = 2.0" in text
    assert "def module_value(" not in text


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (peeking, r"uses edited from autograder\.spec, which checks\.py cannot contain"),
        (lambda *_: None, "must be a function"),
    ],
    ids=["a judge with more than it may have", "a judge without a name"],
)
def test_a_judge_that_cannot_be_released_is_refused(judge, message):
    first = dataclasses.replace(HALVE.cases[0], judge=judge)
    exercise = dataclasses.replace(HALVE, cases=(first, *HALVE.cases[1:]))
    with pytest.raises(ValueError, match=message):
        checks_module(dataclasses.replace(TOY, exercises=(exercise,)))


# The course's own assignments


@pytest.mark.parametrize("name", SOURCES)
def test_the_committed_assignment_is_what_a_release_makes(name):
    assert drift(spec.load(name), ROOT) == [], f"run: autograder release {name}"


@pytest.mark.parametrize("name", RELEASED)
def test_no_line_of_a_right_answer_is_in_what_a_student_downloads(name):
    source = (ROOT / "solutions" / f"{name}.py").read_text()
    answers = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, flags=re.DOTALL)
    answers += [edited(exercise.reference) for exercise in spec.load(name).exercises]
    lines = {line.strip() for text in answers for line in text.splitlines()}
    telling = {line for line in lines if len(line) > 20 and not line.startswith(("def ", "class ", "super("))}
    folder = ROOT / "assignments" / name
    cells = "\n".join(cell.source for cell in notebook(folder, name).cells)
    public = cells + (folder / "checks.py").read_text()
    assert telling
    assert [line for line in telling if line in public] == []


@pytest.fixture(scope="module", params=RELEASED)
def ran(request, tmp_path_factory):
    """Return the code cells of an assignment, run as released, and the same with the model answers pasted in.

    One kernel runs both; the course's package and safetensors cannot be imported in it.
    """
    name = request.param
    folder = shutil.copytree(ROOT / "assignments" / name, tmp_path_factory.mktemp(name) / name)
    unsolved = notebook(folder, name)
    solved = copy.deepcopy(unsolved)
    source = (ROOT / "solutions" / f"{name}.py").read_text()
    for cell in solved.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = re.search(rf'# %% exercise="{cell.id}"\n(.*?)\n# %%', source, flags=re.DOTALL)[1]
    hide = nbformat.v4.new_code_cell(
        "import sys\nsys.modules |= dict.fromkeys(['autograder', 'safetensors'])"
    )
    for cell in solved.cells:
        cell.id = f"solved-{cell.id}"
    both = nbformat.v4.new_notebook(cells=[hide, *unsolved.cells, *solved.cells], metadata=unsolved.metadata)
    NotebookClient(both, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return [[cell for cell in each.cells if cell.cell_type == "code"] for each in (unsolved, solved)]


def checks_of(cells):
    return [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]


def errors_of(cells):
    return [out.traceback for cell in cells for out in cell.outputs if out.output_type == "error"]


def test_each_check_of_an_unsolved_notebook_says_that_the_exercise_is_not_written(ran):
    unsolved, _ = ran
    said = errors_of(checks_of(unsolved))
    assert len(said) == len(checks_of(unsolved))
    assert all("is not written yet" in line for (line,) in said)


def test_an_unsolved_notebook_runs_to_the_end_without_a_wall_of_traceback(ran):
    unsolved, _ = ran
    assert all(cell.execution_count for cell in unsolved)
    assert {len(traceback) for traceback in errors_of(unsolved)} == {1}


def test_with_the_model_answers_every_check_passes_and_nothing_fails(ran):
    _, solved = ran
    assert errors_of(solved) == []
    tables = [cell.outputs[0].data["text/html"] for cell in checks_of(solved)]
    assert [table for table in tables if "✗" in table or "○" in table or "✓" not in table] == []
