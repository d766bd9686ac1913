"""Executed pages are kept as long as the code that they import stays the same.

The stock cache looks at a page's own text only: after a change in the package it would show old numbers.
"""

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parent.parent.parent
READ_BY_PAGES = (
    "autograder/**/*.py",
    "autograder/**/*.safetensors",
    "autograder/*.json",
    "book/*.py",
    "book/*.csv",
    "book/*.mplstyle",
    "requirements.lock",
)


def code_hash() -> str:
    """Return a hash of every file that a page's result may depend on."""
    digest = hashlib.sha256()
    for pattern in READ_BY_PAGES:
        for file in sorted(ROOT.glob(pattern)):
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def choose(app: Sphinx, config: Config) -> None:
    """Point the execution cache at the folder of this code."""
    config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache" / code_hash())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx, before myst_nb reads the configuration."""
    app.connect("config-inited", choose, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
