"""Judges what came back from the sandbox: points, status and message of one exercise.

A message about hidden cases holds shapes, sizes of errors and the specification's own words. What an
exception says never gets in: student code could write hidden inputs into it.
"""

from dataclasses import dataclass
from typing import Any

from autograder import judge, pack
from autograder.grading.expected import Expected
from autograder.grading.reasons import sentence
from autograder.probes import Outputs
from autograder.spec import Group


@dataclass(frozen=True)
class Result:
    """The outcome of one exercise.

    `status` is passed, partial, failed, missing, error, timeout, crashed, forbidden or pending. `mistake` is
    the name of a known mistake that explains the answer.
    """

    points: float
    max_points: float
    status: str
    message: str
    mistake: str | None = None


def result(expected: Expected, reply: bytes, defined: bool) -> Result:
    """Return an exercise's result from the sandbox's reply; `defined`: whether its definition was found."""
    exercise = expected.exercise
    outputs, called = _read(reply, len(expected.cases))
    if outputs is None:
        message = "Your code broke off while it was checked, or did not answer as it should."
        return Result(0, exercise.points, "crashed", message)
    banned = exercise.operators | {name.rpartition(".")[2] for name in exercise.forbid}
    if shortcuts := sorted(banned & called):
        message = f"{exercise.name} ran `{shortcuts[0]}`. The exercise is about writing that yourself."
        return Result(0, exercise.points, "forbidden", message)
    if exercise.forbid and not defined:
        message = (
            f"Write {exercise.name} with `def` or `class` in a cell. How yours came about cannot be seen."
        )
        return Result(0, exercise.points, "forbidden", message)
    return judged(expected, outputs)


def judged(expected: Expected, outputs: list[Outputs]) -> Result:
    """Return the result of one exercise from what the probes gave for every hidden case."""
    exercise, groups = expected.exercise, expected.groups
    problems = [problem_of(group, expected, outputs) for group in groups]
    failing = [number for number, problem in enumerate(problems) if problem]
    pairs = zip(groups, problems, strict=True)
    paid = 0 if problems[0] else sum(group.points for group, problem in pairs if not problem)
    if not failing:
        return Result(paid, exercise.points, "passed", f"All {len(problems)} checks hold.")
    group, (problem, case) = groups[failing[0]], problems[failing[0]] or ("", 0)
    status = "partial" if paid else "failed"
    raised = outputs[case].get("raised")
    if raised and failing[0] == 0 and "raised" not in expected.outputs[case]:
        if "NotImplementedError" in raised["bases"]:
            return Result(0, exercise.points, "missing", f"{exercise.name} is not written yet.")
        status = "error"
    mistake = _mistake(group, expected, outputs)
    parts = [
        f"{len(problems) - len(failing)} of {len(problems)} checks hold.",
        *(
            ["Nothing is paid while the first does not."]
            if problems[0] and len(failing) < len(problems)
            else []
        ),
        f"The first that does not: {sentence(group.title)}",
        sentence(problem[:1].upper() + problem[1:]),
        *(known.hint for known in exercise.mistakes if known.name == mistake),
        f"To re-read: {sentence(group.reread)}",
    ]
    return Result(paid, exercise.points, status, " ".join(parts), mistake)


def problem_of(group: Group, expected: Expected, outputs: list[Outputs]) -> tuple[str, int] | None:
    """Return what the first case of a group that does not hold shows, and its number."""
    for number in expected.numbers(group):
        try:
            problem = group.judge(outputs[number], expected.outputs[number], expected.cases[number].inputs)
        except Exception:  # what came back is the student's to choose, so a judge may stumble over it
            problem = "what came back cannot be compared with what was expected"
        if problem:
            return problem, number
    return None


def _mistake(group: Group, expected: Expected, outputs: list[Outputs]) -> str | None:
    try:
        return judge.recognise(outputs, expected.outputs, expected.numbers(group), expected.mistakes)
    except Exception:  # as above: an answer that cannot be compared is no known mistake
        return None


def _read(reply: bytes, cases: int) -> tuple[list[Outputs] | None, set[str]]:
    """Return (outputs, called) from a reply; outputs are None when it is not what `probes.run` returns."""
    try:
        content = pack.unpack(reply)
        outputs, called = content["outputs"], content["called"]
        if (
            isinstance(outputs, list)
            and len(outputs) == cases
            and all(_well_formed(each) for each in outputs)
        ):
            return outputs, {name for name in called if isinstance(name, str)}
    except (ValueError, TypeError, KeyError):
        pass
    return None, set()


def _well_formed(outputs: Any) -> bool:
    if not isinstance(outputs, dict) or "raised" not in outputs:
        return isinstance(outputs, dict)
    raised = outputs["raised"]
    if not isinstance(raised, dict) or not isinstance(raised.get("bases"), list):
        return False
    return all(
        isinstance(text, str) for text in (raised.get("type"), raised.get("message"), *raised["bases"])
    )
