"""Tests that need a device or a browser are skipped, with the reason, where it is missing."""

import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs a CUDA GPU, and torch sees none here")
    if item.get_closest_marker("browser") and not shutil.which("chromium"):
        pytest.skip("needs Chromium, and there is no command 'chromium' here")


def _has_gpu() -> bool:
    import torch  # only here: most tests need no torch, and its import takes seconds

    return torch.cuda.is_available()
