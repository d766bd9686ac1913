"""The check at home. Together with the reader, probes and judge it makes the `checks.py` of an assignment.

It runs the student's answer on public inputs and compares what comes out with stored outputs of the reference
and of known mistakes. Neither the reference nor the code of a mistake is needed here.
"""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from autograder.judge import name_of, recognise, shape
from autograder.pack import pack, unpack
from autograder.probes import Outputs, leaves, observe
from autograder.release.report import FAILS, HOLDS, SKIPPED, TO_DO, Report, Row
from autograder.release.surroundings import (
    FunctionCalls,
    Unfinished,
    moved,
    needs_float64,
    say_what_is_missing,
    steady,
)

LIBRARIES = str(Path(torch.__file__).parents[1])
Tried = tuple[Outputs, str | None]
Device = str | torch.device | None


class CheckFailed(Unfinished):
    """Says in one line what does not hold."""


class Checks:
    """The checks of one assignment, called as `check(patchify)`.

    `data` is the content of `cases.safetensors`, `functions` the probes, judges and pictures that it names.
    """

    def __init__(self, data: dict[str, Any], functions: Sequence[Callable[..., Any]]) -> None:
        self.exercises: dict[str, dict[str, Any]] = data["exercises"]
        self._functions = {function.__name__: function for function in functions}
        say_what_is_missing(self.exercises.keys())

    def __call__(self, answer: Any, name: str | None = None, device: Device = None) -> None:
        """Show which behaviours hold for `answer`. Raises CheckFailed, an AssertionError, unless all do.

        `name` is the exercise's name where the answer has another one. `device` holds the inputs; it is
        torch's default device unless given.
        """
        report = self.report(answer, name, device)
        _show(report)
        if not report.passed:
            raise CheckFailed(report.summary)

    def report(self, answer: Any, name: str | None = None, device: Device = None) -> Report:
        """Return what a check of `answer` finds."""
        name = self._known(answer, name)
        exercise = self.exercises[name]
        place = torch.device(device) if device is not None else torch.get_default_device()
        skipped = {
            case["group"]
            for case in exercise["cases"]
            if place.type == "mps" and needs_float64(case["inputs"])
        }
        cases = [case for case in exercise["cases"] if case["group"] not in skipped]
        with steady():
            tried = [self._try(exercise, answer, case, place) for case in cases]
            shortcuts = self._shortcuts(exercise, answer, cases[0])
        wrong = {case["group"]: number for number, case in reversed([*enumerate(cases)]) if tried[number][1]}
        rows = [
            Row(group["title"], group["points"], FAILS if g in wrong else SKIPPED if g in skipped else HOLDS)
            for g, group in enumerate(exercise["groups"])
        ]
        to_do = self._to_do(name, tried[0][0], shortcuts)
        if to_do:
            rows = [Row(row.title, row.points, TO_DO) for row in rows]
            return Report(name, 0, exercise["points"], rows, [("To do", to_do)])
        earned = 0 if 0 in wrong else sum(row.points for row in rows if row.state == HOLDS)
        if not wrong:
            return Report(name, earned, exercise["points"], rows)
        number = wrong[min(wrong)]
        details = self._details(name, answer, cases, tried, number, place)
        picture = self._picture(exercise["picture"], cases[number], tried[number][0])
        return Report(name, earned, exercise["points"], rows, details, picture)

    def _known(self, answer: Any, name: str | None) -> str:
        if isinstance(answer, str):
            raise TypeError(f"answer is a text; give the function or class itself: check({answer})")
        wanted = name if name is not None else str(getattr(answer, "__name__", type(answer).__name__))
        if wanted not in self.exercises:
            known = ", ".join(self.exercises)
            raise ValueError(f'name {wanted!r} is not one of {known}; say which it is: check(answer, "name")')
        return wanted

    def _try(self, exercise: Any, answer: Any, case: dict[str, Any], place: torch.device) -> Tried:
        """Return the outputs for one case and what is wrong with them, or None."""
        probe = self._functions[case["probe"]]
        judge = self._functions[exercise["groups"][case["group"]]["judge"]]
        with place:
            outputs = observe(probe, answer, moved(case["inputs"], place))
        if outputs.get("raised", {}).get("type") == "KeyboardInterrupt":
            raise KeyboardInterrupt
        with torch.device("cpu"):
            yours = unpack(pack(outputs))
            problem = judge(yours, case["expected"], case["inputs"])
        here = (place.type, "meta")
        strays = [name for name, leaf in leaves(outputs).items() if leaf.device.type not in here]
        if problem is None and strays:
            problem = f"{strays[0]}: on the CPU, the inputs are on {place}"
        return yours, problem

    def _shortcuts(self, exercise: Any, answer: Any, case: dict[str, Any]) -> list[str]:
        """Return the functions that an answer calls though the exercise is about writing them."""
        if not exercise["forbidden"]:
            return []
        with FunctionCalls() as calls:
            observe(self._functions[case["probe"]], answer, case["inputs"])
        return sorted(calls.names & set(exercise["forbidden"]))

    @staticmethod
    def _to_do(name: str, first: Outputs, shortcuts: list[str]) -> str | None:
        """Return what has to be done before any behaviour counts, or None."""
        if "NotImplementedError" in first.get("raised", {}).get("bases", ()):
            return f"{name} is not written yet. Write it in the cell above, run that cell, then this one."
        return f"Your answer calls `{shortcuts[0]}`: write that yourself." if shortcuts else None

    def _details(
        self, name: str, answer: Any, cases: list[Any], tried: list[Tried], number: int, place: torch.device
    ) -> list[tuple[str, str]]:
        """Return what to tell about the first behaviour that does not hold, seen in case `number`."""
        exercise, case, (yours, problem) = self.exercises[name], cases[number], tried[number]
        details = [("Found", str(problem)), ("Called as", _call(name, case["inputs"]))]
        if "raised" in yours and "raised" not in case["expected"]:
            details.append(("Error", self._error(answer, case, place)))
        group = [each for each, other in enumerate(cases) if other["group"] == case["group"]]
        done = {each: [other["mistakes"].get(each) for other in cases] for each in exercise["hints"]}
        expected = [other["expected"] for other in cases]
        mistake = recognise([outputs for outputs, _ in tried], expected, group, done)
        if mistake is not None:
            details.append(("Hint", exercise["hints"][mistake]))
        return [*details, ("Read again in the book", exercise["groups"][case["group"]]["reread"])]

    def _error(self, answer: Any, case: dict[str, Any], place: torch.device) -> str:
        """Return the student's own error message, with the line of the student's code that raised it."""
        try:
            with steady(), place:
                self._functions[case["probe"]](answer, moved(case["inputs"], place))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            frames = traceback.extract_tb(error.__traceback__)
            theirs = [
                frame for frame in frames if not frame.filename.startswith((str(Path(__file__)), LIBRARIES))
            ]
            return f"{text} (line {theirs[-1].lineno} of its cell: `{theirs[-1].line}`)" if theirs else text
        return "it does not come back when run again: does the answer keep something between calls?"

    def _picture(self, picture: str | None, case: dict[str, Any], yours: Outputs) -> Any:
        if picture is None or "raised" in yours or "raised" in case["expected"]:
            return None
        import matplotlib.pyplot as plt

        expected, given = (next(iter(made.values())) for made in (case["expected"], yours))
        figure = self._functions[picture](case["inputs"], expected, given)
        plt.close(figure)  # else the notebook shows it a second time
        return figure


def load(path: Path, functions: Sequence[Callable[..., Any]]) -> Checks:
    """Return the checks whose cases are in a file."""
    with torch.device("cpu"):
        return Checks(unpack(path.read_bytes()), functions)


def _call(name: str, inputs: dict[str, Any]) -> str:
    """Return the call in words: "patchify(images: float32 (2, 3, 8, 12), patch_size=4)"."""
    given = {key: value for key, value in inputs.items() if not key.startswith("_")}
    call = f"{name}({_list(given)})"
    return f"{call}, then forward({_list(inputs['_forward'])})" if "_forward" in inputs else call


def _list(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}{_brief(value)}" for key, value in arguments.items())


def _brief(value: Any) -> str:
    """Return ": float32 (2, 3)" for a tensor, ": a dict of 3" for a dict of them, else "=" and the value."""
    if isinstance(value, torch.Tensor):
        return f": {name_of(value.dtype)} {shape(value)}"
    return f": a {type(value).__name__} of {len(value)}" if leaves(value) else f"={value!r}"


def _show(report: Report) -> None:
    """Show the table and its picture: rich in a notebook, plain text elsewhere."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython, display = (lambda: None), print
    display(report)
    if report.picture is not None and getattr(get_ipython(), "kernel", None) is not None:
        display(report.picture)
