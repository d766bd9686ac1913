"""Checks that train the answer: what they watch, what stays in the grader, and points that wait for a GPU."""

import json
import math
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nbgrader.api import Gradebook

from autograder import calibrate, pack, spec
from autograder import training_checks as checks
from autograder.cli import main
from autograder.grading import bulk, gpu
from autograder.grading.course import Course
from autograder.grading.expected import Expected
from autograder.grading.judging import Result
from autograder.grading.store import Store
from autograder.grading.submission import Cell, Submission
from autograder.grading.verdicts import Grader, Verdict
from autograder.reference.vision_transformer import VisionTransformer
from autograder.release import release
from autograder.sandbox import Sandbox
from autograder.spec import Assignment, Group
from autograder.training_cases import CALIBRATION, MODEL, started, training

ROOT = Path(__file__).parent.parent
EXERCISES = {
    name: next(each for each in spec.load(name).exercises if each.trains) for name in calibrate.ASSIGNMENTS
}
TRAIN = EXERCISES["training"]
ANSWER = (ROOT / "tests" / "answers" / "training" / "train_data_loader.py").read_text()
every_exercise = pytest.mark.parametrize("name", EXERCISES)


def found(title: str, code: str) -> str | None:
    """What the check with this title finds in `train`, defined by the code beside the reference's pieces."""
    case = next(each for each in TRAIN.drawn(b"a test", "training") if title in each.group.title)
    return case.group.judge(case.outputs(spec.define(code, TRAIN.reference)), {}, case.inputs)


def changed(old: str, new: str) -> str:
    return spec.edited(TRAIN.reference, (old, new))


# The model


def test_the_small_model_is_the_one_of_the_course():
    state = started(spec.Draw(0), **MODEL)
    state = {name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}
    models = checks.SmallViT(**MODEL), checks.WatchedViT(**MODEL), VisionTransformer(**MODEL)
    images = torch.randn(3, 1, 8, 8)
    outputs = []
    for model in models:
        model.load_state_dict(state)
        with torch.no_grad():
            outputs.append(model.eval()(images))
    torch.testing.assert_close(outputs[0], outputs[2])
    assert torch.equal(outputs[0], outputs[1])


# What never enters the sandbox


@every_exercise
def test_labels_of_images_that_count_are_not_sent(name):
    expected = Expected.of(EXERCISES[name], name, b"a secret")
    kept = [case.inputs["_kept"]["labels"] for case in expected.cases if len(case.inputs["_kept"]["labels"])]
    assert kept
    for sent in pack.unpack(expected.request)["cases"]:
        assert "_kept" not in sent["inputs"]
        tensors = [value for value in sent["inputs"].values() if isinstance(value, torch.Tensor)]
        assert not any(torch.equal(each, labels) for each in tensors for labels in kept)


def test_hidden_digits_are_other_images_under_other_names_than_those_at_home():
    drawn = [TRAIN.drawn(secret, "training")[-1].inputs for secret in (b"public", b"a secret")]
    assert not torch.equal(drawn[0]["images"][:50], drawn[1]["images"][:50])

    def labels_by_image(inputs):
        return {
            tuple(image.flatten().sort().values.tolist()): int(label)
            for image, label in zip(inputs["images"], inputs["labels"], strict=True)
        }

    home, hidden = map(labels_by_image, drawn)
    shared = home.keys() & hidden.keys()
    assert len(shared) > 300
    assert sum(home[image] == hidden[image] for image in shared) < 0.5 * len(shared)


# What the checks see


def test_a_model_whose_forward_pass_was_replaced_does_not_give_its_predictions_elsewhere():
    code = changed(
        "return {", "model.forward = lambda images: torch.eye(10)[[3] * len(images)]\n    return {"
    )
    assert "gives other predictions" in found("same predictions elsewhere", code)


def test_parameters_under_other_names_are_refused():
    code = changed("return {", "model.extra = nn.Parameter(torch.zeros(1))\n    return {")
    assert "other names or shapes" in found("same predictions elsewhere", code)


def test_a_state_that_is_not_finite_classifies_nothing():
    code = changed("return {", "model.pos_embed.data.fill_(float('nan'))\n    return {")
    assert found("same predictions elsewhere", code)


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        (None, "a dict"),
        ({"loss": []}, "a dict with the key"),
        ({"loss": ["2.3", "2.3"]}, "not a number"),
        ({"loss": [math.nan, 2.3]}, "infinite or not a number"),
        ({"loss": [2.3]}, "one loss for each"),
        ({"loss": [23.0, 2.3]}, "too large"),
        ({"loss": [0.2, 0.1]}, "too small"),
        ({"loss": torch.tensor([2.3, 2.3])}, None),
        ({"loss": (2.3, 2), "accuracy": 1.0}, None),
    ],
    ids=str,
)
def test_the_form_and_the_start_of_the_losses(history, problem):
    inputs = {"_model": MODEL, "epochs": 2}
    said = checks.starts_at_chance({"history": history}, {}, inputs)
    assert (problem is None and said is None) or problem in said


def test_passes_that_only_measure_may_be_in_evaluation_mode():
    measuring = "model.eval()\n        model(images)\n        model.train()\n        history.append("
    assert found("training mode", changed("history.append(", measuring)) is None


def test_messages_hold_no_number_that_the_student_chose():
    inputs = {"_model": MODEL, "epochs": 2}
    for losses in ([123.456, 1.0], [0.123456, 0.1]):
        assert "123" not in checks.starts_at_chance({"history": {"loss": losses}}, {}, inputs)


# In the sandbox


def handed_in(*cells: str) -> Submission:
    return Submission("training.ipynb", "".join(cells).encode(), tuple(Cell("code", each) for each in cells))


@pytest.fixture(scope="module")
def only_train() -> Assignment:
    return replace(spec.load("training"), exercises=(TRAIN,))


@pytest.fixture(scope="module")
def verdict(only_train: Assignment, warm_sandbox: Sandbox) -> Verdict:
    return Grader(only_train, b"a secret").grade(handed_in(ANSWER), warm_sandbox)


def test_a_right_loop_earns_all_but_the_points_that_wait_for_a_gpu(verdict: Verdict):
    result = verdict.exercises["train"]
    assert (result.points, result.max_points, result.status) == (20, 25, "pending")
    assert "All 10 checks hold. 5 more points wait for a check on a GPU." in result.message


def test_a_loop_that_learns_nothing_has_nothing_waiting(only_train: Assignment, warm_sandbox: Sandbox):
    code = "def train(model, images, labels, **how):\n    return {'loss': [9.0] * how['epochs']}"
    result = Grader(only_train, b"a secret").grade(handed_in(code), warm_sandbox).exercises["train"]
    assert (result.points, result.status) == (0, "failed")


# The calibration


@every_exercise
def test_the_published_table_covers_every_answer_over_at_least_twenty_seeds(name):
    exercise, assignment = EXERCISES[name], spec.load(name)
    table = json.loads(CALIBRATION.read_text())["cpu"][exercise.name]
    assert table["seeds"] >= 20
    assert {(each["kind"], each["name"]) for each in table["answers"]} == set(
        calibrate.candidates(assignment, exercise)
    )
    assert [each["title"] for each in table["checks"]] == [g.title for g in exercise.cases if not g.gpu]


@every_exercise
def test_right_answers_were_never_rejected_and_mistakes_in_at_least_95_of_100_runs(name):
    table = json.loads(CALIBRATION.read_text())["cpu"][EXERCISES[name].name]
    for each in table["answers"]:
        share = each["rejected"] / each["runs"]
        assert {"right": share == 0, "mistake": share >= 0.95}.get(each["kind"], True), each["name"]


@every_exercise
def test_a_run_of_the_calibration_finds_what_the_table_says(name):
    exercise = EXERCISES[name]
    mistake = exercise.mistakes[0].name
    run = calibrate.run(((name, calibrate.WRONG, mistake), 0), gpu=False)
    table = json.loads(CALIBRATION.read_text())["cpu"][exercise.name]
    row = next(each for each in table["answers"] if each["name"] == mistake)
    assert run.failed[0] == row["first"]


# Points that wait for a GPU


STEADY = {"epochs": 2, "batch_size": 20, "peak_lr": 3e-3, "weight_decay": 0.05}
STAND_IN = replace(
    TRAIN,
    points=7,
    cases=(
        Group("returns losses", 2, (training(60, **STEADY),), "-", judge=checks.starts_at_chance),
        Group("moves", 3, (training(60, **STEADY),), "-", judge=checks.moves_everything, gpu=True),
        Group("keeps up", 2, (training(60, _short=1, **STEADY),), "-", judge=checks.keeps_up, gpu=True),
    ),
)  # fmt: skip
LAZY = "def train(model, images, labels, **how):\n    return {'loss': [2.3] * how['epochs']}"


@pytest.fixture
def on_gpu(warm_sandbox: Sandbox) -> gpu.OnGpu:
    """The checks for a GPU of a stand-in exercise, in the ordinary sandbox."""

    return gpu.OnGpu(STAND_IN, spec.load("training"), b"a secret", lambda: nullcontext(warm_sandbox))


def pending(points: float) -> Result:
    return gpu.waiting(Result(points, 7, "passed", "All 1 checks hold."), STAND_IN)


def test_points_wait_only_where_the_other_checks_leave_them_to_be_earned():
    assert pending(2).status == "pending"
    for status in ("failed", "error", "missing", "timeout", "crashed", "forbidden"):
        result = Result(0, 7, status, "No.")
        assert gpu.waiting(result, STAND_IN) == result


def test_an_exercise_without_gpu_checks_never_waits():
    result = Result(5, 5, "passed", "All hold.")
    assert gpu.waiting(result, spec.load("patches").exercises[0]) == result


def test_the_gpu_completes_a_pending_result(on_gpu: gpu.OnGpu):
    result = on_gpu.complete([ANSWER], pending(2))
    assert result.message.startswith("All 1 checks hold. On the GPU")
    assert result.points in (5, 7)  # the time of a run this short may be twice the reference's by chance


def test_the_gpu_pays_nothing_for_a_loop_that_moves_nothing(on_gpu: gpu.OnGpu):
    result = on_gpu.complete([LAZY], pending(2))
    assert result.status == "partial"
    assert "No parameter of the model changed" in result.message


def test_a_crash_on_the_gpu_is_no_fault_of_the_grader(on_gpu: gpu.OnGpu):
    result = on_gpu.complete(["import os\ndef train(*_, **__): os._exit(3)"], pending(2))
    assert (result.points, result.status) == (2, "partial")


@pytest.mark.parametrize(
    ("yours", "problem"),
    [
        ({"seconds": 1.9, "bytes": 140}, None),
        ({"seconds": 2.1, "bytes": 100}, "2.1 times as long"),
        ({"seconds": 1.0, "bytes": 160}, "1.6 times the memory"),
    ],
)
def test_speed_and_memory_are_compared_with_the_reference(yours, problem):
    said = checks.keeps_up(yours, {"seconds": 1.0, "bytes": 100}, {})
    assert (said is None and problem is None) or problem in said


@pytest.mark.parametrize(("waits", "fine"), [(2, True), (40, False)])
def test_a_loop_that_asks_for_the_loss_in_every_step_waits_for_the_gpu(waits, fine):
    inputs = {"epochs": 2, "batch_size": 10, "images": torch.zeros(200)}
    assert (checks.never_waits({"waits": waits}, {}, inputs) is None) == fine


def test_autocast_is_seen_in_the_dtype_of_the_output():
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    inputs = {
        **training(40, **STEADY)(spec.Draw(0)),
        "images": images,
        "_test_images": images[:1],
    }
    always = changed("enabled=images.is_cuda", "enabled=True")
    for code, fine in ((always, True), (spec.edited(TRAIN.reference), False)):
        outputs = checks.trained_on_gpu(spec.define(code, TRAIN.reference), inputs)
        assert (checks.autocasts(outputs, {}, inputs) is None) == fine


def test_without_a_gpu_pending_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["grade", "training", "--pending", "--course", str(tmp_path)]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_a_stored_verdict_that_waits_is_completed_and_then_kept(tmp_path: Path, verdict: Verdict):
    store = Store(tmp_path, "training", b"a secret")
    submission = handed_in(ANSWER)
    store.save(submission, verdict)
    assert store.load(submission).exercises["train"].status == "pending"


def test_the_gradebook_counts_the_earned_points_and_shows_that_some_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_sandbox: Sandbox
):
    monkeypatch.setenv("AUTOGRADER_SECRET", "a secret for these tests")
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    (tmp_path / "solutions").mkdir()
    shutil.copy(ROOT / "solutions" / "training.py", tmp_path / "solutions")
    monkeypatch.setattr(sys.modules[release.__module__], "public_cases", lambda assignment: {})  # takes long
    release(spec.load("training"), tmp_path)
    made = tmp_path / "submitted" / "ada" / "training"
    made.mkdir(parents=True)
    notebook = json.loads((tmp_path / "assignments" / "training" / "training.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "train":
            cell["source"] = ANSWER
    (made / "training.ipynb").write_text(json.dumps(notebook))
    monkeypatch.chdir(tmp_path)

    course = Course(Path())
    outcome = bulk.grade(course, spec.load("training"), lambda: nullcontext(warm_sandbox), 1)
    assert outcome.verdicts["ada"].exercises["train"].status == "pending"
    with Gradebook(course.directory.db_url) as book:
        grades = {g.name: g for g in book.find_submission_notebook("training", "training", "ada").grades}
        assert grades["check-train"].auto_score == 20
        assert grades["check-train"].needs_manual_grade
        assert not grades["check-train_step"].needs_manual_grade
        assert book.find_submission("training", "ada").needs_manual_grade
