"""The course's own demonstrations in a notebook: unchanged, they say nothing about the student's work.

They draw the pictures that teach, which takes longer than all else, so grading leaves them out.
"""

import ast
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import nbformat

from autograder.grading.names import binds, parse
from autograder.release.assemble import global_names

# These reach names by a text, so a cell that has one of them may use any name.
REACHES_ALL = {"eval", "exec", "globals", "locals", "vars", "get_ipython", "__import__"}


def demonstrations(released: Path) -> frozenset[str]:
    """Return the sources of the released notebook's code cells that hold neither an exercise nor a check."""
    if not released.is_file():
        return frozenset()
    cells = nbformat.read(released, as_version=4).cells
    return frozenset(c.source for c in cells if c.cell_type == "code" and "nbgrader" not in c.metadata)


def idle(sources: Sequence[str], known: frozenset[str]) -> set[int]:
    """Return the numbers of the cells that are known and define nothing that a cell which runs may use."""
    left_out = {number for number, source in enumerate(sources) if source in known}
    while left_out:
        running = [_names(source) for number, source in enumerate(sources) if number not in left_out]
        used = set().union(*(uses for _, uses in running))
        needed = {n for n in left_out if used & REACHES_ALL or used & _names(sources[n])[0]}
        if not needed:
            break
        left_out -= needed
    return left_out


@lru_cache(maxsize=4096)
def _names(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that a cell binds and those that it uses; one that is not Python may use any."""
    tree = parse(source)
    if tree is None:
        return frozenset(), frozenset(REACHES_ALL)
    try:
        used = global_names(ast.unparse(tree))
    except (SyntaxError, RecursionError):
        used = REACHES_ALL
    return frozenset(name for node in tree.body for name in binds(node)), frozenset(used)
