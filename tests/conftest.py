"""Tests that need a device or a browser are skipped, with the reason, where it is missing."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from autograder.sandbox import Sandbox


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs a CUDA GPU, and torch sees none here")
    if item.get_closest_marker("browser") and not shutil.which("chromium"):
        pytest.skip("needs Chromium, and there is no command 'chromium' here")


def _has_gpu() -> bool:
    import torch  # only here: most tests need no torch, and its import takes seconds

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def warm_sandbox() -> Iterator["Sandbox"]:
    """One sandbox for all tests that grade; starting one takes seconds."""
    from autograder.sandbox import Sandbox, Unavailable

    try:
        sandbox = Sandbox(allow={"jaxtyping"})  # the course's own source has shapes in annotations
    except Unavailable as reason:
        pytest.skip(str(reason))
    with sandbox:
        yield sandbox
