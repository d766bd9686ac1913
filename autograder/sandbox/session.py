"""The grader's side of the sandbox: open a submission, ask its functions, believe nothing."""

import json
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import IO, Any, Literal

from autograder.sandbox import launch
from autograder.sandbox.launch import Unavailable
from autograder.sandbox.protocol import Channel, Closed, Garbled, Late

_START_SECONDS, _SERVER_SECONDS = 120.0, 20.0
_GRACE_SECONDS, _PATIENCE_SECONDS = 1.0, 0.5
_RESTARTS, _CELL_ROUNDS, _STALE_FRAMES = 12, 3, 32
MIME_TYPES = ("text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml", "image/png")
_UNREADABLE, _TOO_LARGE = 70, 71  # exit codes of an exercise process, as in child.py


@dataclass(frozen=True)
class Limits:
    """What one submission may use. Memory counts above the warm server's own."""

    cells_seconds: float = 30.0  # all cells together
    probe_seconds: float = 10.0
    memory_mb: int = 2048
    processes: int = 64  # threads included
    tmpfs_mb: int = 64
    output_bytes: int = 64_000  # text kept of a cell
    image_bytes: int = 1_000_000  # pictures kept of a cell
    frame_mb: int = 64
    gpu: bool = False  # bind the GPU's device nodes; CUDA reserves addresses by the terabyte


@dataclass(frozen=True)
class CellResult:
    """What a cell showed, as in a notebook file (bounded, not sanitised), and how it ended."""

    outputs: list[dict[str, Any]]
    error: str | None
    status: Literal["ok", "error", "timeout", "crashed", "skipped"]


@dataclass(frozen=True)
class Reply:
    """A student function's answer to a probe: bytes of `pack`, not yet checked, or why there are none."""

    status: Literal["ok", "missing", "timeout", "crashed"]
    payload: bytes = b""
    reason: str = ""


class Sandbox:
    """One warm server. Hosts one submission at a time; for several at once make several.

    `allow` names packages that student code may import beside the usual ones. `unsafe` runs student code
    without any isolation, for a machine that has none. Raises Unavailable when isolation cannot be had.
    """

    def __init__(self, limits: Limits | None = None, allow: Iterable[str] = (), unsafe: bool = False) -> None:
        self.limits = limits or Limits()
        self._allow, self._unsafe = frozenset(allow), unsafe
        self._world = 0  # number of the submission's world that is open, 0 for none
        self._worlds = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None
        self._start()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open(self, cells: Sequence[str]) -> "Session":
        """Run the cells in a new world and return the session to probe it. Close it before the next."""
        if self._world:
            raise RuntimeError("a submission is still open in this sandbox: close its session first")
        return Session(self, cells)

    def close(self) -> None:
        """Stop the server, and with it everything inside."""
        if self._process:
            self._control.close()
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        if self._words:
            self._words.close()
        self._process = self._words = None
        self._world = 0

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._control = Channel(ours, 0)
        limits = asdict(self.limits)
        limits["cpu_seconds"] = int(2 * self.limits.cells_seconds + 2 * self.limits.probe_seconds) + 1
        try:
            self._process, self._words = launch.start(theirs, limits, self._allow, self._unsafe)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            self._control.receive(time.monotonic() + _START_SECONDS)
        except (Closed, Late, Garbled):
            raise Unavailable(self._complaint()) from None
        # Starting was not the whole test: a first world shows whether namespaces, mounts and the filter work.
        channel = self._spawn()
        try:
            channel.send({}, b"[]")
            channel.receive(time.monotonic() + _SERVER_SECONDS)
        except (Closed, Late, Garbled):
            end = self._end(_PATIENCE_SECONDS)
            raise Unavailable(str(end.get("detail") or end)) from None
        finally:
            channel.close()
        self._end()

    def _complaint(self) -> str:
        assert self._process
        assert self._words
        self._process.kill()
        self._process.wait()
        self._words.seek(0)
        return self._words.read()[-2000:].decode(errors="replace").strip() or "the server did not start"

    def _spawn(self) -> Channel:
        """Start a world and return the channel to it. A dead server is replaced first."""
        for attempt in (1, 2):
            ours, theirs = socket.socketpair()
            try:
                self._worlds += 1
                self._control.send({"open": self._worlds}, deadline=time.monotonic() + _SERVER_SECONDS)
                socket.send_fds(self._control.stream, [b"."], [theirs.fileno()])
                self._world = self._worlds
                return Channel(ours, self.limits.frame_mb << 20)
            except (Closed, Late, OSError):
                ours.close()
                if attempt == 2:
                    raise
                self.close()
                self._start()
            finally:
                theirs.close()
        raise AssertionError("unreachable")

    def _end(self, patience: float = 0.0) -> dict[str, Any]:
        """End the open world, wait until nothing of it is left, and return how it ended.

        A world that is about to end by itself has `patience` seconds to do so: then it can say why.
        """
        if not self._world:
            return {}
        self._world = 0
        try:
            with suppress(Late):
                return self._control.receive(time.monotonic() + patience)[0]
            deadline = time.monotonic() + _SERVER_SECONDS
            self._control.send({"close": True}, deadline=deadline)
            return self._control.receive(deadline)[0]
        except (Closed, Late, Garbled):
            self.close()
            self._start()
            return {"why": "server"}


class Session:
    """One submission, its cells already run. Closing it leaves nothing of it behind.

    `cells` holds a result for each cell; `student_seconds` is wall time spent waiting for student code.
    """

    def __init__(self, sandbox: Sandbox, sources: Sequence[str]) -> None:
        self._sandbox, self._sources, self._limits = sandbox, list(sources), sandbox.limits
        self._channel: Channel | None = None
        self._restarts = 0
        self._deadly: set[int] = set()
        self._probed = False
        self.student_seconds = 0.0
        self.cells = [CellResult([], None, "skipped") for _ in self._sources]
        try:
            self._revive()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything of the submission."""
        self._drop()

    def probe(self, name: str, request: bytes, seconds: float | None = None) -> Reply:
        """Ask the student's object `name` to answer a packed request within `seconds` of wall time.

        Whatever happens to it, the next probe finds the student's names as the cells left them.
        """
        seconds = self._limits.probe_seconds if seconds is None else seconds
        reply = None
        while not reply:
            # An earlier exercise may have left this world broken; then the fault shows only now.
            blameless = self._probed and self._channel is not None
            if not self._channel and not self._revive():
                return Reply("crashed", reason="the notebook cannot be run again")
            self._probed = True
            reply = self._try(name, request, seconds)
            if blameless and not self._channel:
                reply = None
        return reply

    def _try(self, name: str, request: bytes, seconds: float) -> Reply | None:
        """Ask once. When the world breaks the protocol, end it. None: the server died, so ask again."""
        started = time.monotonic()
        try:
            return self._ask(name, request, seconds, started + seconds + _GRACE_SECONDS)
        except Late:
            self._drop()
            return Reply("timeout", reason=f"no answer within {seconds:g} s")
        except Garbled:
            self._drop()
            return Reply("crashed", reason="it disturbed the channel to the grader")
        except Closed:
            end = self._drop(_PATIENCE_SECONDS)
            return None if end.get("why") == "server" else Reply("crashed", reason=_reason(end))
        finally:
            self.student_seconds += time.monotonic() - started

    def _ask(self, name: str, request: bytes, seconds: float, deadline: float) -> Reply:
        assert self._channel
        number = secrets.token_hex(16)
        self._channel.send({"probe": name, "id": number, "seconds": seconds}, request, deadline)
        for _ in range(_STALE_FRAMES):
            header, payload = self._channel.receive(deadline)
            if header.get("id") != number:
                continue  # the end of an earlier exercise's process, or something forged
            status, code = header.get("status"), header.get("code")
            if status == "ok":
                return Reply("ok", payload)
            if status == "missing":
                return Reply("missing", reason=f"`{name}` is not defined")
            if status == "timeout":
                return Reply("timeout", reason=f"no answer within {seconds:g} s")
            if status == "ended" and type(code) is int and abs(code) < 256:
                return Reply(
                    "crashed", reason=_reason({"why": "signal" if code < 0 else "exit", "code": abs(code)})
                )
            break
        raise Garbled("no reply to the request")

    def _revive(self) -> bool:
        """Start a world and run the cells in it, leaving out those that killed or hung an earlier one."""
        deadline = time.monotonic() + self._limits.cells_seconds * _CELL_ROUNDS
        while self._restarts < _RESTARTS and time.monotonic() < deadline:
            self._restarts += 1
            started = time.monotonic()
            self._channel = self._sandbox._spawn()
            try:
                if self._run_cells(min(deadline, started + self._limits.cells_seconds)):
                    return True
            finally:
                self.student_seconds += time.monotonic() - started
        return False

    def _run_cells(self, deadline: float) -> bool:
        """Run the cells; return whether all ended. If not, the world is gone and one more is deadly."""
        assert self._channel
        plan = [(index, source) for index, source in enumerate(self._sources) if index not in self._deadly]
        results: dict[int, CellResult] = {}
        at, result = -1, CellResult([], None, "crashed")
        try:
            self._channel.send({}, json.dumps(plan).encode(), deadline)
            for at, _ in [*plan, (-1, "")]:
                header, payload = self._channel.receive(deadline)
                if header.get("cell", 0) != (None if at < 0 else at):
                    raise Garbled("another cell's result")
                if at >= 0:
                    results[at] = _cell_result(header, payload, self._limits)
            result = replace(result, status="ok")
        except Late:
            result = CellResult([], f"no end within {self._limits.cells_seconds:g} s", "timeout")
            self._drop()
        except Garbled:
            result = CellResult([], "it disturbed the channel to the grader", "crashed")
            self._drop()
        except Closed:
            result = CellResult([], _reason(self._drop(_PATIENCE_SECONDS)), "crashed")
        if at >= 0:
            self._deadly.add(at)
            results[at] = result
        if not self._probed:
            # What a rerun shows after the first probe is not kept: it must not carry hidden inputs out.
            for index, kept in results.items():
                self.cells[index] = kept
        return result.status == "ok"

    def _drop(self, patience: float = 0.0) -> dict[str, Any]:
        if not self._channel:
            return {}
        self._channel.close()
        self._channel = None
        return self._sandbox._end(patience)


def _cell_result(header: dict[str, Any], payload: bytes, limits: Limits) -> CellResult:
    """Return a cell's result as the notebook process tells it. Raises Garbled when it is none."""
    if len(payload) > 8 * limits.output_bytes + 2 * limits.image_bytes + 100_000:
        raise Garbled("too much output")
    try:
        outputs = [_output(told) for told in json.loads(payload)]
        error = header["error"] and _text(header["error"])[:500]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Garbled("not the outputs of a cell") from None
    return CellResult(outputs, error, "error" if error else "ok")


def _output(told: Any) -> dict[str, Any]:
    """Return one output of a notebook file, built anew from what is text in `told`."""
    kind = told["output_type"]
    if kind == "stream":
        return {
            "output_type": kind,
            "name": "stderr" if told["name"] == "stderr" else "stdout",
            "text": _text(told["text"]),
        }
    if kind == "error":
        named = {key: _text(told[key]) for key in ("ename", "evalue")}
        return {"output_type": kind, **named, "traceback": [_text(line) for line in told["traceback"]]}
    if kind not in ("display_data", "execute_result"):
        raise ValueError(kind)
    data = {mime: _text(told["data"][mime]) for mime in MIME_TYPES if mime in told["data"]}
    counted = {"execution_count": None} if kind == "execute_result" else {}
    return {"output_type": kind, "data": data, "metadata": {}, **counted}


def _text(told: Any) -> str:
    """Return text that every file and database can hold. Raises TypeError when `told` is not text."""
    if not isinstance(told, str):
        raise TypeError(type(told))
    return told.replace("\0", "").encode(errors="replace").decode()


def _reason(end: dict[str, Any]) -> str:
    code = end.get("code", 0)
    match end.get("why"):
        case "memory":
            return "killed: it used too much memory"
        case "processes":
            return "killed: it started too many processes"
        case "signal":
            with suppress(ValueError):
                return f"killed by signal {code} ({signal.Signals(code).name})"
            return f"killed by signal {code}"
        case "exit" if code == _UNREADABLE:
            return "its answer could not be read"
        case "exit" if code == _TOO_LARGE:
            return "its answer is too large"
        case "exit":
            return f"exited with code {code}"
    return "ended without an answer"
