"""How well checks that train tell right answers from wrong ones, over many seeds: `make calibrate`.

For every seed the inputs are drawn anew, and the reference, the right answers of `tests/answers/`, every
known mistake and every harmless one go through the checks. The table goes to `calibration.json`; the checks
take their thresholds from there, and the book prints it.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from autograder import mutation, spec
from autograder.grading.gpu import OnGpu, source
from autograder.spec import Assignment, Exercise
from autograder.training_cases import CALIBRATION, FOLDER, image_folder
from autograder.training_checks import accuracy, generalises

ASSIGNMENTS = ("training", "fine_tuning")
ENOUGH = 20  # seeds; thresholds from fewer are not written down
RIGHT, WRONG, HARMLESS = "right", "mistake", "harmless mistake"


class Run(NamedTuple):
    """One answer with one seed: the titles of the checks that it fails, and its share of right answers."""

    exercise: str
    kind: str
    name: str
    seed: int
    failed: list[str]
    accuracy: float | None


def candidates(assignment: Assignment, exercise: Exercise) -> list[tuple[str, str]]:
    """Return (kind, name) of every answer that the calibration runs."""
    right = ["the reference", *mutation.answers(assignment, exercise)]
    kinds = {RIGHT: right, WRONG: [m.name for m in exercise.mistakes], HARMLESS: list(harmless(assignment))}
    return [(kind, name) for kind, found in kinds.items() for name in found]


def harmless(assignment: Assignment) -> dict[str, str]:
    """Return the code of the mistakes that hardly matter at this size, by name."""
    module = sys.modules[f"autograder.specs.{assignment.name}"]
    return {mistake.name: mistake.code for mistake in module.HARMLESS}


def code(assignment: Assignment, exercise: Exercise, kind: str, name: str) -> str | None:
    """Return the text of a candidate; None for the reference itself."""
    if kind == RIGHT:
        path = mutation.ANSWERS / assignment.name / f"{name}.py"
        return path.read_text() if path.exists() else None
    known = {mistake.name: mistake.code for mistake in exercise.mistakes}
    return (known | harmless(assignment))[name]


def run(work: tuple[tuple[str, str, str], int], gpu: bool) -> Run:
    """Return what the checks find in one candidate with one seed.

    A right answer goes through all of them; a wrong one until the first that it fails, as it would be paid.
    On a GPU all of them run, in the sandbox as when graded.
    """
    (assignment_name, kind, name), seed = work
    torch.set_num_threads(1)
    assignment = spec.load(assignment_name)
    exercise = next(each for each in assignment.exercises if each.trains)
    text, secret = code(assignment, exercise, kind, name), f"calibration {seed}".encode()
    if gpu:
        on_gpu = OnGpu(exercise, assignment, secret)
        outputs = on_gpu.outputs([source(exercise), *([text] if text else [])])
        pairs = zip(on_gpu.groups, on_gpu.problems(outputs), strict=True)
        titles = [group.title for group, problem in pairs if problem]
        return Run(exercise.name, kind, name, seed, titles, on_gpu.accuracy(outputs))
    tried = spec.define(text, exercise.reference) if text else exercise.reference
    failed: list[str] = []
    share = None
    for case in exercise.drawn(secret, assignment.name):
        if failed and kind != RIGHT:
            break
        yours = case.outputs(tried)
        if case.group.judge(yours, {}, case.inputs):
            failed.append(case.group.title)
        if case.group.judge is generalises:
            labels = case.inputs["_kept"]["labels"]
            found = accuracy(yours, case.inputs, case.inputs["_test_images"], labels)
            share = found if isinstance(found, float) else None
    return Run(exercise.name, kind, name, seed, failed, share)


def summary(runs: Iterable[Run], titles: list[str]) -> dict[str, Any]:
    """Return the table of one exercise: per answer and per check."""
    by_answer: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for each in runs:
        by_answer[each.kind, each.name].append(each)
    answers = []
    for (kind, name), group in by_answer.items():
        shares = [each.accuracy for each in group if each.accuracy is not None]
        first = [each.failed[0] for each in group if each.failed]
        answers.append(
            {
                "kind": kind,
                "name": name,
                "runs": len(group),
                "rejected": len(first),
                "first": max(first, key=first.count) if first else None,
                "accuracy": [round(min(shares), 4), round(max(shares), 4)] if shares else None,
            }
        )
    right, wrong = ([each for each in runs if each.kind == kind] for kind in (RIGHT, WRONG))
    checks = [
        {
            "title": title,
            "false_rejects": sum(title in each.failed for each in right),
            "first_to_reject": sum(each.failed[:1] == [title] for each in wrong),
        }
        for title in titles
    ]
    counts = {
        "right_runs": len(right),
        "false_rejects": sum(bool(each.failed) for each in right),
        "wrong_runs": len(wrong),
        "false_accepts": sum(not each.failed for each in wrong),
    }
    return {**thresholds(right), **counts, "checks": checks, "answers": answers}


def thresholds(right: list[Run]) -> dict[str, float]:
    """Return the reference's accuracy and what is enough: four deviations below the lowest right run."""
    measured: dict[str, list[float]] = {each.name: [] for each in right}
    for each in right:
        measured[each.name] += [] if each.accuracy is None else [each.accuracy]
    reference = measured.get("the reference", [])
    if len(reference) < 2:
        return {}
    deviation, lowest = statistics.stdev(reference), min(map(min, measured.values()))
    found = {"reference": statistics.mean(reference), "deviation": deviation, "lowest": lowest}
    found = {name: round(value, 4) for name, value in found.items()}
    return {**found, "floor": int(100 * (lowest - 4 * deviation)) / 100}


def device(gpu: bool) -> str:
    """Return the name of the processor that the runs use."""
    if gpu:
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"one core of {models[0] if models else platform.processor() or platform.machine()}"


def show(name: str, table: dict[str, Any]) -> None:
    """Print the table of one exercise."""
    print(f"{name}, {table['seeds']} seeds, {table['device']}")
    for each in table["answers"]:
        shares = " to ".join(f"{share:.1%}" for share in each["accuracy"] or ())
        rejected = f"rejected {each['rejected']:3} of {each['runs']:3}"
        print(f"  {each['kind']:16} {each['name']:44} {rejected}  {shares:14}  {each['first'] or ''}")
    for each in table["checks"]:
        counts = f"false rejects {each['false_rejects']}, first to reject {each['first_to_reject']}"
        print(f"  check: {each['title']:80} {counts}")
    print({key: table[key] for key in ("reference", "deviation", "lowest", "floor") if key in table})


def main(argv: list[str] | None = None) -> int:
    """Run the calibration, print its table and, unless that is only a part, write it down."""
    parser = argparse.ArgumentParser(prog="python -m autograder.calibrate", description=__doc__)
    parser.add_argument("assignment", nargs="*", choices=[*ASSIGNMENTS, []], help="default: all that train")
    parser.add_argument("--seeds", type=int, default=ENOUGH, help=f"default: {ENOUGH}; fewer write nothing")
    parser.add_argument("--only", default="", help="only answers whose name contains this; writes nothing")
    parser.add_argument("--gpu", action="store_true", help="calibrate the checks that need a GPU")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    given = parser.parse_args(argv)
    if given.gpu and not torch.cuda.is_available():
        print("No GPU is here: its checks stay uncalibrated, and their points pending.", file=sys.stderr)
        return 1
    if given.gpu and image_folder() is None:
        print(f"{FOLDER} must name a folder of images, one sub-folder a class.", file=sys.stderr)
        return 1
    tier = "gpu" if given.gpu else "cpu"
    with ProcessPoolExecutor(1 if given.gpu else given.jobs) as pool:
        for name in given.assignment or ASSIGNMENTS:
            assignment = spec.load(name)
            exercise = next(each for each in assignment.exercises if each.trains)
            titles = [group.title for group in exercise.cases if group.gpu == given.gpu]
            if not titles:
                continue
            tried = [(name, *each) for each in candidates(assignment, exercise) if given.only in each[1]]
            work = list(product(tried, range(given.seeds)))
            runs = list(pool.map(partial(run, gpu=given.gpu), work))
            table = {"device": device(given.gpu), "seeds": given.seeds, **summary(runs, titles)}
            show(exercise.name, table)
            if given.only or given.seeds < ENOUGH:
                print(f"Only a part was run, so {CALIBRATION.name} stays as it is.")
            else:
                results = json.loads(CALIBRATION.read_text())  # now: another run may have written meanwhile
                results.setdefault(tier, {})[exercise.name] = table
                CALIBRATION.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
