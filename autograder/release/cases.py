"""What a check at home compares with: public inputs, outputs of the reference and of each known mistake."""

from typing import Any

from autograder import pack, probes, spec
from autograder.judge import agrees, differ
from autograder.release.surroundings import steady

PUBLIC = b"public"  # where the grader has the course's secret


def public_cases(assignment: spec.Assignment) -> dict[str, Any]:
    """Return the content of `cases.safetensors`: per exercise its groups, cases and hints.

    The outputs of a mistake are kept only in the cases where it differs from the reference.
    """
    exercises = {each.name: _exercise(each, assignment) for each in assignment.exercises}
    return {"assignment": assignment.name, "exercises": exercises}


def _exercise(exercise: spec.Exercise, assignment: spec.Assignment) -> dict[str, Any]:
    at_home = [group for group in exercise.cases if not group.gpu]
    known = () if exercise.trains else exercise.mistakes
    wrong = {each.name: spec.define(each.code, like=exercise.reference) for each in known}
    cases = []
    for case in exercise.drawn(PUBLIC, assignment.name):
        expected = {} if exercise.trains else outputs(exercise.reference, case)
        given = {name: outputs(answer, case) for name, answer in wrong.items()}
        cases.append(
            {
                "group": at_home.index(case.group),
                "probe": case.probe.__name__,
                "inputs": case.inputs,
                "expected": expected,
                "mistakes": {name: made for name, made in given.items() if _differs(made, expected, case)},
            }
        )
    return {
        "points": sum(group.points for group in at_home),
        "forbidden": sorted(exercise.operators | {name.rpartition(".")[2] for name in exercise.forbid}),
        "groups": [
            {"title": each.title, "points": each.points, "reread": each.reread, "judge": each.judge.__name__}
            for each in at_home
        ],
        "cases": cases,
        "hints": {mistake.name: mistake.hint for mistake in known},
        "picture": None if exercise.picture is None else exercise.picture.__name__,
    }


def _differs(made: probes.Outputs, expected: probes.Outputs, case: spec.Case) -> bool:
    """Return whether a mistake shows in a case, if only by another kind of error."""
    return case.group.judge(made, expected, case.inputs) is not None or not agrees(made, expected)


def outputs(answer: Any, case: spec.Case) -> probes.Outputs:
    """Return what the probe of a case gives for an answer, as it comes out of the sandbox or a file."""
    with steady():
        return pack.unpack(pack.pack(case.outputs(answer)))


def equivalent(one: bytes, other: bytes) -> bool:
    """Return whether two case files say the same, but for rounding: processors round products differently."""
    return one == other or differ(pack.unpack(one), pack.unpack(other)) is None
