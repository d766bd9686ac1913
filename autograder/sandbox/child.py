"""The notebook process: runs the student's cells, then has probes answered by exercise processes.

A fork is most of the price of a probe, so an exercise process goes on to the next exercise while it is as
good as a fresh one. All of this runs beside student code, in the same process, and is believed by nobody.
"""

import io
import json
import os
import random
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy
import torch

from autograder import pack, probes
from autograder.sandbox.notebook import Notebook, refuse_input, stub_checks
from autograder.sandbox.protocol import Channel, Closed, Garbled

UNREADABLE, TOO_LARGE = 70, 71  # exit codes of an exercise process
# Kept before any student code can replace them. This protects honest notebooks that go wrong, not the score.
_fork, _exit, _waitpid, _kill, _pidfd_open, _poll = (
    os.fork,
    os._exit,
    os.waitpid,
    os.kill,
    os.pidfd_open,
    select.poll,
)
_Thread, _get_native_id = threading.Thread, threading.get_native_id


def prepare(settings: dict[str, Any]) -> Callable[[Channel], None]:
    """Make ready what does not depend on the submission, and return the function that serves one."""
    torch.set_num_threads(1)
    notebook = Notebook.prepare(settings["output_bytes"], settings["image_bytes"])
    # First use loads what later uses need: optimizers and tracing import torch's compiler, for seconds.
    torch.optim.AdamW([torch.ones(1, requires_grad=True)]).step()
    inputs = {"_forward": {"input": torch.ones(1, 2)}, "in_features": 2, "out_features": 2}
    cases = [
        {"probe": probe, "inputs": inputs} for probe in ("module_gradients", "module_manners", "module_start")
    ]
    pack.pack(
        probes.run(torch.nn.Linear, pack.unpack(pack.pack({"sources": "", "cases": cases, "trace": True})))
    )

    def serve(channel: Channel) -> None:
        if settings["isolated"]:
            _hide_ourselves()
        refuse_input()
        stub_checks()
        _seed()
        try:
            _run_cells(channel, notebook)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _kill_others(settings)
            _answer(channel, notebook.user_ns, settings)
        except Closed:
            return

    return serve


def _hide_ourselves() -> None:
    """Make `import autograder` fail, as at a student's home. The folder itself is already covered."""
    for name in [name for name in sys.modules if name.split(".")[0] == "autograder"]:
        del sys.modules[name]
    sys.path.remove("/sandbox")


class _Nowhere(io.TextIOBase):
    """What is printed during a probe: it could hold hidden inputs."""

    def write(self, text: str) -> int:
        return len(text)


def _seed() -> None:
    torch.default_generator.manual_seed(0)  # torch.manual_seed formats a stack for each GPU
    random.seed(0)
    numpy.random.seed(0)


def _run_cells(channel: Channel, notebook: Notebook) -> None:
    _, payload = channel.receive()
    for index, source in json.loads(payload):
        outputs, error = notebook.run(source, index)
        channel.send({"cell": index, "error": error}, json.dumps(outputs).encode())
    channel.send({"cell": None})


def _answer(channel: Channel, namespace: dict[str, Any], settings: dict[str, Any]) -> None:
    """Answer requests until the channel closes."""
    exercise: _Exercise | None = None
    while True:
        header, request = channel.receive()
        if header["probe"] not in namespace:
            channel.send({"id": header["id"], "status": "missing"})
            continue
        exercise = exercise or _Exercise(channel, namespace)
        if not exercise.ask(header, request):
            _kill_others(settings)
            exercise = None


class _Exercise:
    """An exercise process, as the notebook process sees it. It sends its answers to the grader itself."""

    def __init__(self, channel: Channel, namespace: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        self._channel, self._orders = channel, Channel(ours, channel.payload_bytes)
        self._process = _patient_fork()
        if self._process == 0:
            ours.close()
            _work(channel, Channel(theirs, channel.payload_bytes), namespace)
        theirs.close()
        self._ended = _pidfd_open(self._process)

    def ask(self, header: dict[str, Any], request: bytes) -> bool:
        """Have one request answered; return whether the process is fit for another. If not, it is gone."""
        watch = _poll()
        watch.register(self._ended, select.POLLIN)
        watch.register(self._orders.stream, select.POLLIN)
        late, fit = False, False
        with suppress(Closed, Garbled):
            self._orders.send(header, request)
            late = not watch.poll(int(header["seconds"] * 1000))
            fit = not late and self._orders.receive()[0].get("fit") is True
        if fit:
            return True
        _kill(self._process, signal.SIGKILL)
        _, status = _waitpid(self._process, 0)
        os.close(self._ended)
        self._orders.close()
        code = os.waitstatus_to_exitcode(status)
        self._channel.send({"id": header["id"], "status": "timeout" if late else "ended", "code": code})
        return False


def _patient_fork() -> int:
    """Fork; while the limit on processes is reached, wait for init to bury those that were killed."""
    for _ in range(50):
        with suppress(BlockingIOError):
            return _fork()
        _poll().poll(20)
    return _fork()


def _kill_others(settings: dict[str, Any]) -> None:
    """Kill whatever cells or exercises left running, so that it cannot disturb the next exercise.

    Reaches this world only: its own PID namespace, where init is spared.
    """
    if settings["isolated"] and os.getppid() == 1:
        with suppress(ProcessLookupError):
            _kill(-1, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                _waitpid(-1, 0)  # the dead count as processes until they are waited for


def _work(channel: Channel, orders: Channel, namespace: dict[str, Any]) -> None:
    """The exercise process: run the probes on the answer, send what came out, say whether to go on."""
    try:
        sys.stdout = sys.stderr = _Nowhere()
        before = _traces(namespace)
        while True:
            header, request = orders.receive()
            _seed()
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            payload = pack.pack(probes.run(namespace[header["probe"]], pack.unpack(request)))
            channel.send({"id": header["id"], "status": "ok"}, payload)
            after = _traces(namespace)
            orders.send({"fit": after == (before[0] + 1, before[1])})
            before = after
    except Garbled:
        _exit(TOO_LARGE)
    finally:
        _exit(UNREADABLE)


def _traces(namespace: dict[str, Any]) -> tuple[int, dict[str, tuple[int, int]]]:
    """Return what shows that an exercise left something behind.

    That is the newest task's number (tasks of a PID namespace, threads included, are numbered one after the
    other), and what each name stands for, with its length where it can grow.
    """
    newest: list[int] = []
    task = _Thread(target=lambda: newest.append(_get_native_id()))
    task.start()
    task.join()
    return newest[0], {name: (id(value), _size(value)) for name, value in namespace.items()}


def _size(value: Any) -> int:
    content = getattr(value, "__dict__", None) if callable(value) else value
    return len(content) if isinstance(content, list | dict | set) else 0
