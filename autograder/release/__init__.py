"""Release: from `solutions/<assignment>.py` to `assignments/<assignment>/`, what a student downloads."""

from autograder.release.release import drift, release

__all__ = ["drift", "release"]
