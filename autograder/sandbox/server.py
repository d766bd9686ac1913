"""The warm server: imports torch and the notebook machinery once, then forks one world per submission.

Runs inside bubblewrap, single-threaded, and knows nothing worth stealing: the cells and the hidden inputs
travel on a socket that it only hands through. It watches memory and processes of the submission from outside.
"""

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from autograder.sandbox import jail, seccomp
from autograder.sandbox.protocol import Channel, Closed

_WATCH_MS = 50
_NOBODY = 65534
_FAILED = 72  # exit code of a notebook process that cannot go on


def main(control_fd: int, settings: dict[str, Any]) -> None:
    """Serve until the control channel closes. `settings`: the limits, `isolated`, `hidden`, `machine`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if settings["isolated"] and os.geteuid() == 0:
        # Started by root: go on as nobody, so that no student process ever belongs to the machine's root.
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    control = Channel(socket.socket(fileno=control_fd), 0)
    # Imported as nobody, not as root.
    from autograder.sandbox import child as submission
    from autograder.sandbox import warm

    child = submission.prepare(settings)
    if settings["isolated"]:
        jail.prctl(jail.PR_SET_DUMPABLE, 0)  # no process may trace this one or read its memory
    settings["data_bytes"] = _entries("self", "status", "VmData") + (settings["memory_mb"] << 20)
    settings["address_bytes"] = _entries("self", "status", "VmSize") + 4 * (settings["memory_mb"] << 20)
    if settings["gpu"]:
        settings["address_bytes"] = resource.RLIM_INFINITY
    if settings["isolated"]:
        settings["filter"] = seccomp.program(settings["machine"])
    warm.settle()
    control.send({"ready": True})
    with suppress(Closed):
        _serve(control, child, settings)


def _serve(control: Channel, child: Callable[[Channel], None], settings: dict[str, Any]) -> None:
    """Open and end worlds as the grader says, one at a time; report how each ended."""
    while True:
        header, _ = control.receive()
        if "open" in header:
            _, (data_fd,), _, _ = socket.recv_fds(control.stream, 1, 1)
            _host(control, header["open"], data_fd, child, settings)
        # A request to end a world that has already ended was answered when it ended.


def _host(
    control: Channel, number: int, data_fd: int, child: Callable[[Channel], None], settings: dict[str, Any]
) -> None:
    """Run one world to its end and report it."""
    status_fd, status_in = os.pipe()

    def body() -> None:
        _init(data_fd, status_in, child, settings)

    try:
        init = jail.spawn(body, settings["machine"]) if settings["isolated"] else _fork(body)
    except OSError as error:
        init, end = 0, {"why": "setup", "detail": str(error)}
    finally:
        os.close(data_fd)
        os.close(status_in)
    if init:
        why = _attend(control, init, settings)
        os.waitpid(init, 0)
        end = {"why": why} if why else _last_words(status_fd)
    os.close(status_fd)
    control.send({"ended": number, **end})


def _attend(control: Channel, init: int, settings: dict[str, Any]) -> str:
    """Return when init is gone ("") or was killed, and why: "closed", "memory" or "processes"."""
    ended = os.pidfd_open(init)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control.stream, select.POLLIN)
    why = ""
    while not why:
        events = dict(poll.poll(_WATCH_MS))
        if ended in events:
            break
        if events:
            why = "closed"
            with suppress(Closed):
                control.receive()
        elif settings["isolated"]:
            why = _excess(settings)
    os.close(ended)
    _kill(init, settings)
    return why


def _kill(init: int, settings: dict[str, Any]) -> None:
    with suppress(ProcessLookupError):
        if settings["isolated"]:
            os.kill(init, signal.SIGKILL)
        else:
            os.killpg(init, signal.SIGKILL)


def _excess(settings: dict[str, Any]) -> str:
    """Return "memory" or "processes" when the submission has too much of it, else ""."""
    mine = {"1", str(os.getpid())}
    processes = [name for name in os.listdir("/proc") if name.isdigit() and name not in mine]
    if len(processes) > settings["processes"]:
        return "processes"
    kinds = ("RssAnon", "RssShmem", "VmSwap", "VmPTE")
    limit = _entries("self", "status", *kinds) + (settings["memory_mb"] << 20)
    # Pages shared with the server count fully in each process here. Exact numbers take longer.
    if sum(_entries(name, "status", *kinds) for name in processes) <= limit:
        return ""
    exact = ("Pss_Anon", "Pss_Shmem", "SwapPss")
    used = sum(
        _entries(name, "smaps_rollup", *exact) + _entries(name, "status", "VmPTE") for name in processes
    )
    return "memory" if used > limit else ""


def _entries(process: str, file: str, *kinds: str) -> int:
    """Return the sum of these entries of /proc/PROCESS/FILE in bytes; 0 when the process is gone.

    A process that has made itself unreadable counts with all that it could have.
    """
    try:
        with open(f"/proc/{process}/{file}") as lines:
            words = (line.split() for line in lines)
            return sum(int(word[1]) << 10 for word in words if word[0][:-1] in kinds)
    except PermissionError:
        return _entries(process, "status", "VmRSS", "VmSwap")
    except OSError:
        return 0


def _last_words(status_fd: int) -> dict[str, Any]:
    """Return how init says the submission ended. Init runs no student code."""
    words = os.read(status_fd, 4096)
    return json.loads(words) if words else {"why": "closed"}


def _fork(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(99)
    return pid


def _init(data_fd: int, status_in: int, child: Callable[[Channel], None], settings: dict[str, Any]) -> None:
    """The first process of a world: close the doors, start the notebook process, bury the dead."""
    words: dict[str, Any] = {"why": "setup", "detail": "ended early"}
    try:
        _only_door(data_fd, status_in)
        os.setsid()
        if settings["isolated"]:
            jail.enclose(settings, settings["hidden"])
        else:
            jail.bound(settings)
        notebook = os.fork()
        if notebook == 0:
            _notebook(child, settings)
        os.close(3)
        gone, status = 0, 0
        while gone != notebook:
            gone, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        words = {"why": "signal", "code": -code} if code < 0 else {"why": "exit", "code": code}
    except OSError as error:
        words = {"why": "setup", "detail": str(error)[:500]}
    finally:
        os.write(4, json.dumps(words).encode())
        os._exit(0)


def _only_door(data_fd: int, status_in: int) -> None:
    """Leave open only: nothing on 0 to 2, the data channel on 3, and init's last words on 4."""
    nothing = os.open(os.devnull, os.O_RDWR)
    # First out of the way, so that no number is overwritten before it is copied.
    nothing, data, words = (fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in (nothing, data_fd, status_in))
    for number, fd in enumerate((nothing, nothing, nothing, data, words)):
        os.dup2(fd, number)
    os.closerange(5, 4096)


def _notebook(child: Callable[[Channel], None], settings: dict[str, Any]) -> None:
    """The process that runs student code."""
    try:
        os.close(4)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if settings["isolated"]:
            jail.prctl(jail.PR_SET_DUMPABLE, 1)  # else the watch could not read how much memory this one has
            seccomp.install(settings["filter"])
        child(Channel(socket.socket(fileno=3), settings["frame_mb"] << 20))
        os._exit(0)
    finally:
        os._exit(_FAILED)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
