"""From an answer to points, status and message; run in the real sandbox."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autograder import spec
from autograder.grading.judging import Result
from autograder.grading.store import Store
from autograder.grading.submission import Cell, Submission
from autograder.grading.verdicts import Grader, Verdict
from autograder.sandbox import Sandbox

SECRET = b"a secret for tests"
PATCHES = spec.load("patches")
EXERCISES = {exercise.name: exercise for exercise in PATCHES.exercises}
RIGHT = {name: spec.edited(exercise.reference) for name, exercise in EXERCISES.items()}
# the same assignment, impatient, and with a shortcut that it forbids
STRICT = replace(
    PATCHES,
    exercises=tuple(
        replace(e, seconds=1.5, forbid=frozenset({"torch.Tensor.unfold", "torch.nn.functional.unfold"}))
        for e in PATCHES.exercises
    ),
)


def handed_in(*cells: str) -> Submission:
    return Submission("patches.ipynb", "".join(cells).encode(), tuple(Cell("code", cell) for cell in cells))


@pytest.fixture(scope="module")
def grader() -> Grader:
    return Grader(STRICT, SECRET)


def graded(grader: Grader, sandbox: Sandbox, *cells: str, **answers: str) -> Verdict:
    """The verdict on a notebook of right answers, some of them replaced, with more cells at its end."""
    return grader.grade(handed_in("import torch", *{**RIGHT, **answers}.values(), *cells), sandbox)


def test_right_answers_get_all_points(grader: Grader, warm_sandbox: Sandbox) -> None:
    verdict = graded(grader, warm_sandbox)
    assert {result.status for result in verdict.exercises.values()} == {"passed"}
    assert verdict.score == verdict.max_score == PATCHES.points


@pytest.mark.parametrize(
    "style", sorted(path.stem for path in (Path(__file__).parent / "answers" / "patches").glob("*.py"))
)
def test_independent_right_answers_get_all_points(style: str, warm_sandbox: Sandbox) -> None:
    code = (Path(__file__).parent / "answers" / "patches" / f"{style}.py").read_text()
    verdict = Grader(PATCHES, SECRET).grade(handed_in(code), warm_sandbox)
    assert {
        n: r.status for n, r in verdict.exercises.items() if f"def {n}(" in code and r.status != "passed"
    } == {}


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_known_mistake_is_named_with_its_hint(exercise: str, grader: Grader, warm_sandbox: Sandbox) -> None:
    mistake = EXERCISES[exercise].mistakes[0]
    result = graded(grader, warm_sandbox, **{exercise: mistake.code}).exercises[exercise]
    assert result.points < result.max_points
    assert result.mistake == mistake.name
    assert mistake.hint in result.message


PATCHIFY = "def patchify(images, patch_size):\n    "
BEHAVIOUR = {
    "not defined": ("", "missing", "There is no patchify in what was handed in."),
    "not written": (PATCHIFY + "raise NotImplementedError", "missing", "not written yet"),
    "raises": (PATCHIFY + "return images.nowhere", "error", "AttributeError"),
    "wrong": (PATCHIFY + "return images", "failed", "shape"),
    "returns nothing": (PATCHIFY + "pass", "failed", "missing (None)"),
    "loops": (PATCHIFY + "while True: pass", "timeout", "did not finish in 1.5 seconds"),
    "exits": ("import os\n" + PATCHIFY + "os._exit(0)", "crashed", "ended the Python process"),
    "is no function": ("patchify = 3", "error", "TypeError"),
    "syntax error": (PATCHIFY + "return (", "error", "SyntaxError"),
    "cell fails": ("@nowhere\n" + PATCHIFY + "pass", "error", "name 'nowhere' is not defined"),
    "package is not there": ("import seaborn\n" + PATCHIFY + "pass", "error", "These packages can be used: "),
    "package is not allowed": (
        "import timm\n" + PATCHIFY + "return timm",
        "forbidden",
        "uses the package `timm` (code cell 3, line 3:",
    ),
    "shortcut": (PATCHIFY + "return images.unfold(2, 2, 2)", "forbidden", "line 2"),
    "hidden shortcut": (
        PATCHIFY + "return getattr(images, chr(117) + 'nfold')(2, 2, 2)",
        "forbidden",
        "patchify ran `unfold`",
    ),
    "definition out of sight": (
        f"get_ipython().run_cell({RIGHT['patchify']!r})",
        "forbidden",
        "How yours came about cannot be seen",
    ),
}


@pytest.mark.parametrize(("code", "status", "words"), BEHAVIOUR.values(), ids=BEHAVIOUR.keys())
def test_what_an_answer_does_decides_its_status(
    code: str, status: str, words: str, grader: Grader, warm_sandbox: Sandbox
) -> None:
    verdict = graded(grader, warm_sandbox, patchify=code)
    assert (verdict.exercises["patchify"].status, verdict.exercises["patchify"].points) == (status, 0)
    assert words in verdict.exercises["patchify"].message
    assert verdict.exercises["projection_to_conv"].status == "passed"


def test_points_are_paid_by_group(grader: Grader, warm_sandbox: Sandbox) -> None:
    code = RIGHT["num_patches"].replace("size % patch_size != 0", "False")
    result = graded(grader, warm_sandbox, num_patches=code).exercises["num_patches"]
    assert (result.status, result.points) == ("partial", 2)
    assert result.message.startswith("2 of 3 checks hold. The first that does not: refuses sizes")


def test_nothing_is_paid_when_the_first_group_fails(grader: Grader, warm_sandbox: Sandbox) -> None:
    code = RIGHT["num_patches"] + "\nright = num_patches\ndef num_patches(height, width, patch_size):"
    code += "\n    return right(height, width, patch_size) + (height == width)"
    result = graded(grader, warm_sandbox, num_patches=code).exercises["num_patches"]
    assert (result.status, result.points) == ("failed", 0)


LEAKS = {
    "in an exception's message": "raise ValueError(f'secret {images.sum()}')",
    "in an exception's name": "raise type('secret' + str(patch_size), (ValueError,), {})()",
    "in the name of a type": "return type('secret' + str(patch_size), (), {})()",
    "in what it prints": "print('secret', images); return images",
    "in a warning": "import warnings; warnings.warn(f'secret {images}'); return images",
    "in a dict's keys": "return {'secret' + str(patch_size): images}",
}


@pytest.mark.parametrize("body", LEAKS.values(), ids=LEAKS.keys())
def test_no_hidden_input_gets_out(body: str, grader: Grader, warm_sandbox: Sandbox) -> None:
    verdict = graded(grader, warm_sandbox, patchify=f"def patchify(images, patch_size):\n    {body}")
    assert verdict.exercises["patchify"].points == 0
    assert "secret" not in json.dumps(verdict.to_json()) + str([cell.outputs for cell in verdict.cells])


NOISE = {
    "prints 50 MB": "print('x' * 50_000_000)",
    "warns on stderr": "import sys; print('oh', file=sys.stderr)",
    "fails elsewhere": "1 / 0",
    "exits elsewhere": "import os; os._exit(1)",
    "leaves a process behind": "import os\nif os.fork() == 0:\n    import time; time.sleep(60)",
    "compares always equal": "torch.equal = torch.allclose = lambda *a, **k: True",
    "reads input": "input()",
    "draws": "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
}


@pytest.mark.parametrize("cell", NOISE.values(), ids=NOISE.keys())
def test_a_right_answer_is_paid_whatever_else_the_notebook_does(
    cell: str, grader: Grader, warm_sandbox: Sandbox
) -> None:
    assert graded(grader, warm_sandbox, cell).score == PATCHES.points


def test_a_submission_with_nothing_to_grade_says_why(grader: Grader) -> None:
    verdict = grader.unreadable(Submission("patches.ipynb", problem="patches.ipynb is a folder, not a file"))
    assert verdict.exercises["patchify"] == Result(0, 7, "error", "patches.ipynb is a folder, not a file.")
    assert list(verdict.exercises) == list(EXERCISES)


def test_json_has_exactly_the_documented_keys(grader: Grader) -> None:
    content = grader.unreadable(Submission("a.ipynb", problem="empty")).to_json()
    assert list(content) == ["file", "assignment", "score", "max_score", "exercises"]
    assert list(content["exercises"]["patchify"]) == ["points", "max_points", "status", "message", "mistake"]


def test_a_verdict_is_stored_by_all_that_it_depends_on(tmp_path: Path) -> None:
    submission = handed_in("x = 1")
    verdict = Verdict("patches.ipynb", "patches", {"patchify": Result(3, 7, "partial", "why", "a mistake")})
    store = Store(tmp_path, "patches", SECRET)
    store.save(submission, verdict)
    assert store.load(submission) == verdict
    assert store.load(handed_in("x = 2")) is None
    assert store.load(replace(submission, file="patches.py")) is None
    assert Store(tmp_path, "patches", b"another secret").load(submission) is None
    assert Store(tmp_path, "patch_embedding", SECRET).load(submission) is None


def test_a_damaged_stored_verdict_is_as_good_as_none(tmp_path: Path) -> None:
    store = Store(tmp_path, "patches", SECRET)
    store.save(handed_in("x"), Verdict("f", "patches", {}))
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-5])
    assert store.load(handed_in("x")) is None
