"""The check at home: what a student sees for right, wrong and unfinished answers."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch

from autograder import mutation, pack, spec
from autograder.release.cases import public_cases
from autograder.release.checks import checks_module

ROOT = Path(__file__).parent.parent
NAMES = ["patches", "patch_embedding"]
ASSIGNMENTS = {name: spec.load(name) for name in NAMES}
EXERCISES = [(name, exercise) for name in NAMES for exercise in ASSIGNMENTS[name].exercises]
MISTAKES = [(name, exercise, mistake) for name, exercise in EXERCISES for mistake in exercise.mistakes]
ANSWERS = [
    (name, exercise, style, answer)
    for name, exercise in EXERCISES
    for style, answer in mutation.answers(ASSIGNMENTS[name], exercise).items()
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return for each assignment a folder with what its check needs, made here from the specification."""
    made = {}
    for name, assignment in ASSIGNMENTS.items():
        made[name] = tmp_path_factory.mktemp(name)
        (made[name] / "checks.py").write_text(checks_module(assignment))
        (made[name] / "cases.safetensors").write_bytes(pack.pack(public_cases(assignment)))
    return made


@pytest.fixture(scope="session")
def checks(folders):
    """Return for each assignment its `check`, loaded from the generated file."""
    loaded = {}
    for name, folder in folders.items():
        found = importlib.util.spec_from_file_location(f"checks_of_{name}", folder / "checks.py")
        module = importlib.util.module_from_spec(found)
        sys.modules[found.name] = module
        found.loader.exec_module(module)
        loaded[name] = module.check
    return loaded


@pytest.fixture
def check(checks):
    return checks["patches"]


def details(report):
    return dict(report.details)


def channel_first(images, patch_size):
    """A known mistake of patchify."""
    wrong = next(
        each
        for each in ASSIGNMENTS["patches"].exercises[1].mistakes
        if each.name == "flattened channel first"
    )
    return spec.define(wrong.code, ASSIGNMENTS["patches"].exercises[1].reference)(images, patch_size)


def unwritten(images, patch_size):
    raise NotImplementedError


# What is right passes, what is wrong gets its hint


@pytest.mark.parametrize(
    ("name", "exercise", "style", "answer"),
    ANSWERS,
    ids=[f"{exercise.name}: {style}" for _, exercise, style, _ in ANSWERS],
)
def test_a_right_answer_holds_everywhere(checks, name, exercise, style, answer):
    report = checks[name].report(answer, exercise.name)
    assert report.passed
    assert report.points == exercise.points


@pytest.mark.parametrize(
    ("name", "exercise", "mistake"),
    MISTAKES,
    ids=[f"{exercise.name}: {mistake.name}" for _, exercise, mistake in MISTAKES],
)
def test_a_known_mistake_gets_its_hint(checks, name, exercise, mistake):
    report = checks[name].report(spec.define(mistake.code, exercise.reference), exercise.name)
    assert details(report)["Hint"] in {mistake.hint, *same_outputs(checks[name], exercise, mistake)}


def same_outputs(check, exercise, mistake):
    """Return the hints of the mistakes that do the same as this one in every case."""
    cases = check.exercises[exercise.name]["cases"]
    made = {
        each.name: [pack.pack(case["mistakes"].get(each.name)) for case in cases]
        for each in exercise.mistakes
    }
    return {each.hint for each in exercise.mistakes if made[each.name] == made[mistake.name]}


def test_the_first_group_gates_the_points(check):
    assert check.report(lambda images, patch_size: images, "patchify").points == 0


def test_later_groups_pay_by_themselves(check):
    report = check.report(channel_first, "patchify")
    assert 0 < report.points < report.max_points
    assert report.points == sum(row.points for row in report.rows if row.state == "holds")


# What a student sees


def test_a_passed_check_raises_nothing_and_prints_the_table(check, capsys):
    check(ASSIGNMENTS["patches"].exercises[1].reference)
    printed = capsys.readouterr().out
    assert printed.startswith("patchify: 7 of 7 points")
    assert printed.count("✓") == 7


def test_a_failed_check_raises_an_assertion_error_in_one_line(check):
    with pytest.raises(
        AssertionError, match=r"^patchify: 2 of 7 points\. the result: right shape.*$"
    ) as raised:
        check(channel_first, "patchify")
    assert "\n" not in str(raised.value)
    assert raised.value._render_traceback_() == [str(raised.value)]


def test_the_table_tells_what_differs_how_it_was_called_the_hint_and_what_to_read(check):
    lines = [line.strip() for line in repr(check.report(channel_first, "patchify")).splitlines()]
    starts = [line[:20] for line in lines if not line.startswith(("values", "channel", "3.3"))]
    assert starts[:7] == [
        "patchify: 2 of 7 poi",
        "Your answer ...",
        "✓ cuts a grayscale i",
        "✗ puts the channel l",
        "Found: the result: r",
        "Called as: patchify(",
        "Hint: Inside a patch",
    ]
    assert "Called as: patchify(images: float32 (2, 3, 6, 6), patch_size=3)" in lines
    assert "Read again in the book: The order inside a patch" in lines


def test_the_html_table_escapes_the_text_of_errors(check):
    def patchify(images, patch_size):
        raise KeyError("<script>")

    html = check.report(patchify)._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script" not in html


def test_the_html_table_leaves_colours_of_text_and_background_to_the_theme(check):
    html = check.report(channel_first, "patchify")._repr_html_()
    assert "background" not in html
    assert not re.search(r"(?<!-)color:(?!inherit|#1a8a3c|#d73a3a)", html)


def test_the_html_table_has_words_beside_each_sign(check):
    html = check.report(channel_first, "patchify")._repr_html_()
    assert html.count('aria-label="holds"') == 2
    assert html.count('aria-label="does not hold"') == 6  # five rows and the caption


def test_a_failing_case_with_a_picture_shows_expected_and_yours(check):
    figure = check.report(channel_first, "patchify").picture
    assert [axis.get_title() for axis in figure.axes] == ["expected: first patches", "yours: first patches"]


def test_the_error_of_the_answer_is_shown_with_its_line(check):
    def patchify(images, patch_size):
        return images.reshape(7, patch_size)

    told = details(check.report(patchify))
    assert told["Found"] == "your code stopped with RuntimeError"
    assert re.fullmatch(
        r"RuntimeError: shape .* \(line \d+ of its cell: `return images.reshape\(7, patch_size\)`\)",
        told["Error"],
    )


def test_a_wrong_argument_name_is_told(check):
    told = details(check.report(lambda pictures, patch_size: pictures, "patchify"))
    assert "unexpected keyword argument 'images'" in told["Error"]


def test_an_unwritten_answer_is_told_so_kindly(check):
    report = check.report(unwritten, "patchify")
    assert report.points == 0
    assert repr(report).splitlines()[1].strip().startswith("To do: patchify is not written yet.")
    assert {row.state for row in report.rows} == {"not checked yet"}


def test_a_call_of_a_forbidden_function_is_told(check, monkeypatch):
    monkeypatch.setitem(check.exercises["patchify"], "forbidden", ["permute"])
    report = check.report(ASSIGNMENTS["patches"].exercises[1].reference)
    assert report.points == 0
    assert details(report)["To do"] == "Your answer calls `permute`: write that yourself."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("patchify", r"answer is a text; .* check\(patchify\)"),
        (torch.nn.Linear, "name 'Linear' is not one of num_patches, patchify"),
        (lambda x: x, r"name '<lambda>' is not one of .* check\(answer, \"name\"\)"),
    ],
)
def test_a_check_of_something_else_says_what_to_write(check, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check(wrong)


def test_an_interrupt_stops_the_check(check):
    def patchify(images, patch_size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(patchify)


# Settings and devices


def test_settings_and_random_state_of_the_notebook_do_not_matter_and_come_back(check):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    precision = torch.backends.cuda.matmul.fp32_precision
    try:
        with torch.no_grad():
            assert check.report(ASSIGNMENTS["patches"].exercises[1].reference).passed
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.cuda.matmul.fp32_precision == precision


def test_mps_leaves_out_what_needs_float64_and_says_so(check, monkeypatch):
    attempt = type(check)._try
    monkeypatch.setattr(
        type(check),
        "_try",
        lambda self, exercise, answer, case, place: attempt(
            self, exercise, answer, case, torch.device("cpu")
        ),
    )
    report = check.report(ASSIGNMENTS["patches"].exercises[1].reference, device="mps")
    assert report.passed
    assert [row.title for row in report.rows if "MPS has no float64" in row.state] == [
        "lets gradients through to the images",
        "keeps dtype and device, leaves its input alone and remembers nothing",
    ]
    assert "not checked here: MPS has no float64" in repr(report)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_right_answers_hold_on_cuda(checks, name):
    reports = [
        checks[name].report(exercise.reference, device="cuda") for exercise in ASSIGNMENTS[name].exercises
    ]
    assert [report.headline for report in reports if not report.passed] == []


# The files


@pytest.mark.parametrize("name", NAMES)
def test_checks_import_torch_and_nothing_of_the_course(folders, name):
    found = re.findall(
        r"^ *(?:from|import) ([\w.]+)", (folders[name] / "checks.py").read_text(), flags=re.MULTILINE
    )
    outside = {module.split(".")[0] for module in found} - sys.stdlib_module_names
    assert outside <= {"torch", "matplotlib", "IPython"}


@pytest.mark.parametrize("name", NAMES)
def test_the_safetensors_library_reads_the_cases(folders, name):
    with safetensors.safe_open(folders[name] / "cases.safetensors", framework="pt") as file:
        tree = json.loads(file.metadata()["tree"])
        own = pack.unpack((folders[name] / "cases.safetensors").read_bytes())
        first = file.get_tensor("0")
    assert tree["items"]["assignment"] == own["assignment"] == name
    assert isinstance(first, torch.Tensor)


@pytest.mark.parametrize("name", NAMES)
def test_a_right_answer_is_checked_without_loading_what_takes_seconds(folders, name):
    exercise = ASSIGNMENTS[name].exercises[0]
    source = f"""
import sys, torch
{spec.edited(exercise.reference)}
from checks import check
check({exercise.name})
print("loaded", [name for name in ("sympy", "torch._dynamo", "matplotlib.pyplot") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folders[name],
        env={"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "loaded []"
