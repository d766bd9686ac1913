"""The notebook process: runs the student's cells, then answers each probe in a process of its own.

All of this runs beside student code, in the same process, and is believed by nobody.
"""

import io
import json
import os
import random
import select
import signal
import sys
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
            while True:
                _answer(channel, notebook.user_ns, settings)
                _kill_others(settings)
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
    """Answer one request. The exercise process replies itself; this one says how that process ended."""
    header, request = channel.receive()
    name, reply = header["probe"], {"id": header["id"]}
    if name not in namespace:
        channel.send({**reply, "status": "missing"})
        return
    process = _patient_fork()
    if process == 0:
        _exercise(channel, reply, namespace[name], request)
    ended = _pidfd_open(process)
    watch = _poll()
    watch.register(ended, select.POLLIN)
    late = not watch.poll(int(header["seconds"] * 1000))
    _kill(process, signal.SIGKILL)
    _, status = _waitpid(process, 0)
    os.close(ended)
    channel.send(
        {**reply, "status": "timeout" if late else "ended", "code": os.waitstatus_to_exitcode(status)}
    )


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


def _exercise(channel: Channel, reply: dict[str, Any], answer: Any, request: bytes) -> None:
    """The exercise process: run the probes on the answer, send what came out, end."""
    try:
        sys.stdout = sys.stderr = _Nowhere()
        _seed()
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        payload = pack.pack(probes.run(answer, pack.unpack(request)))
        channel.send({**reply, "status": "ok"}, payload)
        _exit(0)
    except Garbled:
        _exit(TOO_LARGE)
    finally:
        _exit(UNREADABLE)
