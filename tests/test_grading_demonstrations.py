"""Unchanged demonstrations of the course are left out of grading, unless a cell may use their names."""

from pathlib import Path

import pytest

from autograder.grading.demonstrations import demonstrations, idle

SETUP, DEMO, PLOT, ANSWER = (
    "import torch",
    "picture = torch.ones(3)",
    "print(picture.sum())",
    "def f(): return torch.e",
)
KNOWN = frozenset({SETUP, DEMO, PLOT})


@pytest.mark.parametrize(
    ("cells", "left_out"),
    [
        ([SETUP, DEMO, PLOT, ANSWER], {1, 2}),
        ([SETUP, DEMO, PLOT, "def f(): return picture"], {2}),
        ([SETUP, DEMO, PLOT + " ", ANSWER], set()),
        ([SETUP, DEMO, PLOT, ANSWER, "eval('picture')"], set()),
        ([SETUP, DEMO, PLOT, ANSWER, "def (:"], set()),
        ([SETUP, DEMO, DEMO, ANSWER], {1, 2}),
        ([SETUP, DEMO, PLOT, "def f(picture): return torch.sum(picture)"], {1, 2}),
        ([], set()),
    ],
    ids=[
        "unused",
        "used by an answer",
        "changed and using",
        "reached by a text",
        "unreadable",
        "twice",
        "only a local name",
        "empty",
    ],
)
def test_a_demonstration_runs_only_where_something_may_use_it(cells, left_out):
    assert idle(cells, KNOWN) == left_out


def test_exercises_and_checks_are_no_demonstrations():
    released = Path(__file__).parent.parent / "assignments" / "patches" / "patches.ipynb"
    sources = demonstrations(released)
    assert any("interact" in source for source in sources)
    assert not any("def patchify" in source or source.startswith("check(") for source in sources)


def test_without_a_release_every_cell_runs(tmp_path):
    assert demonstrations(tmp_path / "missing.ipynb") == frozenset()
