"""Files of a run that are whole or not there: OUT/step-00001000.pt, of which the newest few are kept.

A file is written under another name, flushed to disk and then renamed, which is one indivisible act. Whoever
is killed while writing leaves a `.part` file that nobody reads. Files hold tensors and plain values only and
are read with `weights_only=True`, so that a file from elsewhere cannot run code.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import state_dict as whole_or_cut

from autograder.reference.trainer.parallel import Processes

NAME = re.compile(r"step-\d{8,}\.pt")
# Files hold whole tensors, however the model was spread: any number of processes goes on from them.
WHOLE = whole_or_cut.StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class State:
    """Everything the next step depends on. `identity` is what must be the same for a run to go on."""

    model: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any]

    def save(self, folder: Path, step: int, processes: Processes) -> None:
        """Write the state after `step` updates. Every process takes part and the first one writes."""
        values = {
            "model": whole_or_cut.get_model_state_dict(self.model, options=WHOLE),
            "optimizer": whole_or_cut.get_optimizer_state_dict(self.model, self.optimizer, options=WHOLE),
            "average": self.average and whole_or_cut.get_model_state_dict(self.average, options=WHOLE),
            "step": step,
            "identity": self.identity,
        }
        if processes.rank == 0:
            write(folder, step, values)
        processes.wait()

    def restore(self, path: Path) -> int:
        """Take over the state of a file; return its step. Raises ValueError for the state of another run."""
        state = read(path)
        theirs = state["identity"]
        differ = [key for key, value in self.identity.items() if theirs.get(key) != value]
        if differ:
            listed = "; ".join(f"{key}={theirs.get(key)!r}, now {self.identity[key]!r}" for key in differ)
            raise ValueError(
                f"{path} belongs to a run with {listed}; resume with the same recipe and data, or choose "
                f"another --out"
            )
        whole_or_cut.set_model_state_dict(self.model, state["model"], options=WHOLE)
        whole_or_cut.set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"], options=WHOLE)
        if self.average is not None:
            whole_or_cut.set_model_state_dict(self.average, state["average"], options=WHOLE)
        return state["step"]


def find(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    found = [path for path in folder.glob("step-*.pt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def write(folder: Path, step: int, values: dict[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint and remove all but the newest `keep`."""
    path = folder / f"step-{step:08}.pt"
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name reaches the disk before an older file goes
    finally:
        os.close(descriptor)
    for old in find(folder)[keep:]:
        old.unlink()
    return path


def read(path: Path) -> dict[str, Any]:
    """Return what `write` was given, on the CPU. Raises ValueError for a file that is no checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each have their own
        fix = "remove it to go on from an older one"
        raise ValueError(f"checkpoint {path} cannot be read; {fix} ({error})") from error
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"checkpoint {path} holds no model; name a file step-*.pt of this trainer")
    return state
