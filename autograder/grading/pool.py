"""Workers that grade submissions side by side: threads, each with one sandbox, where the work happens."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from autograder.grading.store import Store
from autograder.grading.submission import Submission
from autograder.grading.verdicts import Grader, Verdict
from autograder.sandbox import Sandbox, Unavailable

T = TypeVar("T")


class Pool:
    """Grades with `workers` sandboxes. A context manager; a sandbox starts when its worker first needs it."""

    def __init__(
        self,
        grader: Grader,
        workers: int,
        start: Callable[[], AbstractContextManager[Sandbox]],
        store: Store | None = None,
        force: bool = False,
    ) -> None:
        self._grader = grader
        self._store = store
        self._force = force
        self._start = start
        self._own = threading.local()
        self._open = ExitStack()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grading")
        self._ahead = 4 * workers

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *problem: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._open.close()

    def grade(self, submission: Submission) -> tuple[Verdict, bool]:
        """Return the verdict, and whether it was already stored."""
        if submission.problem is not None:
            return self._grader.unreadable(submission), False
        kept = self._store.load(submission) if self._store and not self._force else None
        if kept and not self._grader.can_complete(kept):
            return kept, True
        verdict = kept or self._grader.grade(submission, self._sandbox())
        if self._grader.can_complete(verdict):
            verdict = self._grader.complete(submission, verdict)
        if self._store:
            self._store.save(submission, verdict)
        return verdict, False

    def _sandbox(self) -> Sandbox:
        if not hasattr(self._own, "sandbox"):
            starting = self._start()
            with self._lock:
                self._own.sandbox = self._open.enter_context(starting)
        found: Sandbox = self._own.sandbox
        return found

    def each(self, work: Callable[[str], T], names: Iterable[str]) -> Iterator[tuple[str, Future[T]]]:
        """Do the work for every name and yield outcomes as they come, few of them waiting at a time."""
        running: dict[Future[T], str] = {}
        for name in names:
            running[self._threads.submit(work, name)] = name
            if len(running) >= self._ahead:
                yield from self._finished(running)
        while running:
            yield from self._finished(running)

    def ordered(self, work: Callable[[str], T], names: Iterable[str]) -> Iterator[tuple[str, T | Exception]]:
        """Do the work for every name and yield outcomes in the order of the names. Unavailable is raised."""
        futures = [(name, self._threads.submit(work, name)) for name in names]
        for name, future in futures:
            try:
                yield name, future.result()
            except Unavailable:
                raise
            except Exception as error:
                yield name, error

    @staticmethod
    def _finished(running: dict[Future[T], str]) -> Iterator[tuple[str, Future[T]]]:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future
