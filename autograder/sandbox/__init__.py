"""Runs student code where it can reach nothing.

`Sandbox` is a warm server in bubblewrap, `Session` one submission in a world of its own inside it. The grader
sends cells and probes and gets bytes back; what is inside never learns a right answer.
"""

from autograder.sandbox.launch import Unavailable
from autograder.sandbox.session import CellResult, Limits, Reply, Sandbox, Session

__all__ = ["CellResult", "Limits", "Reply", "Sandbox", "Session", "Unavailable"]
