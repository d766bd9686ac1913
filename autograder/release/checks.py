"""Writes the `checks.py` of an assignment: the runner with just the probes and judges that its cases use."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from autograder import judge, pack, probes
from autograder.release import home, report, surroundings
from autograder.release.assemble import assemble
from autograder.spec import Assignment

HEAD = '''"""Checks for the assignment "{title}": `from checks import check`, then `check({example})`.

The check runs your answer on the inputs in `cases.safetensors`, which lies beside this file, and compares
what comes out with what is expected there. When your work is graded, the same checks run on other inputs.

Made by `autograder release` from its own sources; a change here is lost with the next release.
"""
'''


def checks_module(assignment: Assignment) -> str:
    """Return the text of `checks.py`. Raises ValueError when it would need a part of the reference."""
    functions = _functions(assignment)
    own = {function.__module__: sys.modules[function.__module__] for function in functions}
    modules = {each.__name__: each for each in (pack, probes, judge)} | own
    modules |= {each.__name__: each for each in (report, surroundings, home)}
    wanted = [(function.__module__, function.__name__) for function in functions]
    body = assemble(modules.values(), [*wanted, (home.__name__, home.load.__name__)])
    head = HEAD.format(title=assignment.title, example=assignment.exercises[0].name)
    names = ", ".join(function.__name__ for function in functions)
    tail = f'check = load(Path(__file__).with_name("cases.safetensors"), [{names}])'
    return f"{head}\n{body}\n\n{tail}\n"


def _functions(assignment: Assignment) -> list[Callable[..., Any]]:
    """Return the probes, judges and pictures of an assignment, each once."""
    found: dict[str, Callable[..., Any]] = {}
    for exercise in assignment.exercises:
        at_home = [group for group in exercise.cases if not group.gpu]
        used = [each for group in at_home for each in (group.probe or exercise.probe, group.judge)]
        for function in [*used, exercise.picture] if exercise.picture else used:
            if not inspect.isfunction(function) or not function.__qualname__.isidentifier():
                raise ValueError(f"{exercise.name}: {function!r} must be a function at the top of its module")
            if found.setdefault(function.__name__, function) is not function:
                raise ValueError(f"{exercise.name}: two functions are called {function.__name__}; rename one")
    return list(found.values())
