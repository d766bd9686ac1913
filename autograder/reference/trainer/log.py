"""What a run says: a line for people on the screen, and the same as JSON in OUT/log.jsonl."""

import json
import time
from pathlib import Path
from typing import Any


class Log:
    """The log of one run. Lines of steps that a resumed run takes again give way to the new ones."""

    def __init__(self, folder: Path, step: int, steps: int, quiet: bool) -> None:
        self.path, self.steps, self.quiet = folder / "log.jsonl", steps, quiet
        self.since, self.step = time.perf_counter(), step
        if not quiet:
            folder.mkdir(parents=True, exist_ok=True)
            old = self.path.read_text("utf-8").splitlines(keepends=True) if self.path.exists() else []
            self.path.write_text("".join(line for line in old if _step(line) <= step), "utf-8")

    def write(self, step: int, batch_size: int = 0, **values: Any) -> None:
        """Log the values after `step` updates. With `batch_size`, add images a second since the last time."""
        if self.quiet:
            return
        now = time.perf_counter()
        if batch_size:
            values["images_per_second"] = batch_size * (step - self.step) / (now - self.since)
            self.since, self.step = now, step
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "steps": self.steps} | values) + "\n")
        shown = "  ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in values.items())
        print(f"{100 * step / self.steps:3.0f} %  step {step:,} of {self.steps:,}  {shown}", flush=True)


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line that a killed process left half written


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
