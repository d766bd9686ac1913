"""Every specification keeps its promises: mistakes are caught, right answers pass, hints and links exist."""

import re
from pathlib import Path

import pytest

from autograder import mutation, pack, probes, spec

ROOT = Path(__file__).parent.parent
EXERCISES = [
    (assignment, exercise) for assignment in map(spec.load, spec.names()) for exercise in assignment.exercises
]
MISTAKES = [
    (assignment, exercise, mistake) for assignment, exercise in EXERCISES for mistake in exercise.mistakes
]
ANSWERS = [
    (assignment, exercise, style, answer)
    for assignment, exercise in EXERCISES
    for style, answer in mutation.answers(assignment, exercise).items()
]
every_exercise = pytest.mark.parametrize(
    ("assignment", "exercise"), EXERCISES, ids=[exercise.name for _, exercise in EXERCISES]
)
everywhere = pytest.mark.parametrize("secret", mutation.SECRETS.values(), ids=["home", "hidden"])


def once_if_it_trains(exercise, secret):
    """Skip the cases at home where each run takes seconds: the calibration runs them over twenty seeds."""
    if exercise.trains and secret == mutation.SECRETS["at home"]:
        pytest.skip("trained with the hidden cases, and over many seeds by `make calibrate`")


def test_every_specification_has_its_place_in_the_order():
    assert {path.stem for path in (ROOT / "autograder" / "specs").glob("[a-z]*.py")} == set(spec.names())


@everywhere
@pytest.mark.parametrize(
    ("assignment", "exercise", "mistake"),
    MISTAKES,
    ids=[f"{exercise.name}: {mistake.name}" for _, exercise, mistake in MISTAKES],
)
def test_a_known_mistake_is_caught(assignment, exercise, mistake, secret):
    once_if_it_trains(exercise, secret)
    wrong = spec.define(mistake.code, exercise.reference)
    assert next(mutation.problems(exercise, assignment.name, secret, wrong), None)


@everywhere
@pytest.mark.parametrize(
    ("assignment", "exercise", "style", "answer"),
    ANSWERS,
    ids=[f"{exercise.name}: {style}" for _, exercise, style, _ in ANSWERS],
)
def test_a_right_answer_passes(assignment, exercise, style, answer, secret):
    once_if_it_trains(exercise, secret)
    assert list(mutation.problems(exercise, assignment.name, secret, answer)) == []


@every_exercise
def test_the_reference_passes_its_own_cases(assignment, exercise):
    assert list(mutation.problems(exercise, assignment.name, b"any", exercise.reference)) == []


@every_exercise
def test_at_least_eight_mistakes_with_different_names_and_hints(assignment, exercise):
    assert (
        len({mistake.name for mistake in exercise.mistakes})
        == len({mistake.hint for mistake in exercise.mistakes})
        >= 8
    )


@every_exercise
def test_at_least_three_independent_right_answers(assignment, exercise):
    assert len(mutation.answers(assignment, exercise)) >= 3


@every_exercise
def test_every_group_sends_readers_to_a_heading_of_the_chapter_or_the_first_page(assignment, exercise):
    text = "\n".join((ROOT / "book" / f"{page}.md").read_text() for page in (assignment.chapter, "index"))
    headings = re.findall(r"^#{2,4} (.+)$", text, flags=re.MULTILINE)
    assert {group.reread for group in exercise.cases} <= set(headings)


@every_exercise
def test_the_same_secret_draws_the_same_inputs_and_another_secret_others(assignment, exercise):
    packed = [
        [pack.pack(case.inputs) for case in exercise.drawn(secret, assignment.name)]
        for secret in (b"one", b"one", b"two")
    ]
    assert packed[0] == packed[1]
    assert packed[0] != packed[2]


@every_exercise
def test_an_answer_that_returns_nothing_earns_nothing(assignment, exercise):
    first = exercise.drawn(b"any", assignment.name)[0]
    expected = probes.observe(first.probe, exercise.reference, first.inputs)
    nothing = probes.observe(first.probe, lambda *_, **__: None, first.inputs)
    assert first.group.judge(nothing, expected, first.inputs)
