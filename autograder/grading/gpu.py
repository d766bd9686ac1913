"""Checks that need a GPU: what prevents them, and how they complete a verdict whose points wait for one.

The reference goes through the same kind of sandbox on the same device in the same run, as if it were a
submission, so that speed and memory are compared and not asserted. The grader measures both from outside.
"""

import inspect
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch

from autograder import pack
from autograder.grading.expected import Expected
from autograder.grading.judging import Result, problem_of
from autograder.grading.reasons import sentence
from autograder.probes import Inputs, Outputs
from autograder.sandbox import Limits, Sandbox, Session
from autograder.spec import Assignment, Exercise, Group
from autograder.training_cases import CALIBRATION, image_folder
from autograder.training_checks import accuracy, learns_photographs, pixels

LIMITS = Limits(
    cells_seconds=60, probe_seconds=120, memory_mb=16_384, processes=256, tmpfs_mb=512, frame_mb=256, gpu=True
)
ONE_AT_A_TIME = threading.Lock()  # two submissions on one GPU would disturb each other's times
WAITING = "{points:g} more points wait for a check on a GPU."


def obstacle(exercise: Exercise) -> str | None:
    """Return why the exercise's GPU checks cannot be done here and now, or None."""
    if not torch.cuda.is_available():
        return "torch sees no GPU on this machine"
    if exercise.name not in json.loads(CALIBRATION.read_text()).get("gpu", {}):
        return (
            "the thresholds are not calibrated: run `make calibrate ARGUMENTS=--gpu` on this kind of machine"
        )
    if image_folder() is None:
        return "AUTOGRADER_IMAGES does not name a folder of training images with one sub-folder a class"
    return None


def points(exercise: Exercise) -> float:
    """Return the points of the checks that need a GPU."""
    return sum(group.points for group in exercise.cases if group.gpu)


def waiting(result: Result, exercise: Exercise) -> Result:
    """Return the result with the GPU's points pending, where the other checks leave them to be earned."""
    if not points(exercise) or result.status not in ("passed", "partial"):
        return result
    note = WAITING.format(points=points(exercise))
    return replace(result, status="pending", message=f"{result.message} {note}")


def source(exercise: Exercise) -> str:
    """Return the text of the reference's module, as a cell."""
    return inspect.getsource(sys.modules[exercise.reference.__module__])


class OnGpu:
    """The GPU checks of one exercise. `start` makes a sandbox, by default one that sees the GPU."""

    def __init__(
        self,
        exercise: Exercise,
        assignment: Assignment,
        secret: bytes,
        start: Callable[[], AbstractContextManager[Sandbox]] | None = None,
    ) -> None:
        self.exercise = exercise
        self._start = start or (lambda: Sandbox(LIMITS, assignment.allow))
        self._expected = Expected.of(exercise, assignment.name, secret, gpu=True)
        self._reference: list[Outputs] = []

    def complete(self, cells: list[str], result: Result) -> Result:
        """Return a pending result with its GPU checks done, for a submission with these cells."""
        problems = self.problems(self.outputs(cells))
        groups = self.groups
        paid = result.points + sum(
            group.points for group, each in zip(groups, problems, strict=True) if not each
        )
        status = "passed" if paid == result.max_points else "partial"
        before = result.message.removesuffix(WAITING.format(points=points(self.exercise))).rstrip()
        failing = [(group, each) for group, each in zip(groups, problems, strict=True) if each]
        after = f"On the GPU all {len(groups)} checks hold."
        if failing:
            group, problem = failing[0]
            found = sentence(problem[:1].upper() + problem[1:])
            after = (
                f"On the GPU {len(groups) - len(failing)} of {len(groups)} checks hold. The first that does "
                f"not: {sentence(group.title)} {found} To re-read: {sentence(group.reread)}"
            )
        return replace(result, points=paid, status=status, message=f"{before} {after}")

    @property
    def groups(self) -> list[Group]:
        """The groups that are checked on a GPU."""
        return self._expected.groups

    def problems(self, outputs: list[Outputs]) -> list[str | None]:
        """Return for every group what is wrong with these outputs, or None."""
        if not self._reference:
            self._reference = self.outputs([source(self.exercise)])
            broken = [each["raised"] for each in self._reference if "raised" in each]
            if broken:
                raise RuntimeError(f"the reference fails on this GPU: {broken[0]['message']}")
        expected = replace(self._expected, outputs=self._reference)
        found = [problem_of(group, expected, outputs) for group in expected.groups]
        return [each and each[0] for each in found]

    def accuracy(self, outputs: list[Outputs]) -> float | None:
        """Return the share of new photographs that the trained model classifies right."""
        for case, yours in zip(self._expected.cases, outputs, strict=True):
            if case.group.judge is learns_photographs:
                images, labels = pixels(case.inputs["_test_images"]), case.inputs["_kept"]["labels"]
                share = accuracy(yours, case.inputs, images, labels)
                return share if isinstance(share, float) else None
        return None

    def outputs(self, cells: list[str]) -> list[Outputs]:
        """Return what the probe gives for every case, with the seconds and bytes that the grader measured."""
        with ONE_AT_A_TIME, self._start() as sandbox, sandbox.open(cells) as session:
            return [self._measured(session, case.probe.__name__, case.sent) for case in self._expected.cases]

    def _measured(self, session: Session, probe: str, inputs: Inputs) -> Outputs:
        """Ask once, and a case with `_short` also for so few epochs: the difference has no start in it."""
        short = inputs.get("_short")
        spent = 0.0
        if short is not None:
            spent = self._asked(session, probe, {**inputs, "epochs": short})["seconds"]
        outputs = self._asked(session, probe, inputs)
        return {**outputs, "seconds": outputs["seconds"] - spent}

    def _asked(self, session: Session, probe: str, inputs: Inputs) -> Outputs:
        request = {
            "sources": self._expected.sources,
            "cases": [{"probe": probe, "inputs": inputs}],
            "trace": False,
        }
        packed = pack.pack(request)
        with memory() as peak:
            started = time.monotonic()
            reply = session.probe(self.exercise.name, packed, LIMITS.probe_seconds)
            seconds = time.monotonic() - started
        try:
            outputs = pack.unpack(reply.payload)["outputs"][0] if reply.status == "ok" else None
        except (ValueError, TypeError, KeyError, IndexError):
            outputs = None
        if not isinstance(outputs, dict):
            broken = {"type": reply.status, "bases": ["RuntimeError"], "message": reply.reason}
            outputs = {"raised": broken}
        return {**outputs, "seconds": seconds, "bytes": peak[0]}


@contextmanager
def memory() -> Iterator[list[int]]:
    """Watch the GPU's memory from outside; the list then holds how far its use rose, in bytes."""
    if not torch.cuda.is_available():
        yield [0]
        return
    used = torch.cuda.device_memory_used
    start, peak, over = used(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], used() - start)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
