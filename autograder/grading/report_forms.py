"""The class report for a terminal, for scripts (JSON, CSV) and as a page."""

import csv
import html
import io
import json
from collections.abc import Iterable
from typing import Any

from autograder.grading.report import Report

STATUSES = ("passed", "partial", "failed", "error", "missing", "timeout", "crashed", "forbidden", "pending")


def as_text(report: Report) -> str:
    """Return the report for a terminal."""
    total, points = len(report.verdicts), report.assignment.points
    lines = [f"{report.assignment.title} ({report.assignment.name}): {report.headline}", ""]
    if not total:
        return lines[0] + "\n"
    lines += [
        f"{total} students · mean {report.mean:.1f} · median {report.median:g} · of {points:g} points",
        "",
    ]
    most = max(count for _, count in report.distribution)
    lines += [
        f"  {name:>8}  {'█' * round(30 * count / most):30} {count}" for name, count in report.distribution
    ]
    used = [status for status in STATUSES if any(counter[status] for counter in report.statuses.values())]
    width = max(len(name) for name in report.statuses)
    lines += ["", "  ".join([f"{'':{width}}", *(f"{status:>9}" for status in used)])]
    lines += [
        "  ".join([f"{name:{width}}", *(f"{counter[status] or '·':>9}" for status in used)])
        for name, counter in report.statuses.items()
    ]
    lines += ["", "Most common mistakes" if report.mistakes else "No known mistake was made."]
    lines += [
        f"  {count:>3} of {total}  {mistake}  ({exercise})"
        for count, exercise, mistake in report.mistakes[:12]
    ]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> str:
    """Return the report as JSON, with every student's verdict."""
    content = {
        "assignment": report.assignment.name,
        "headline": report.headline,
        "students": len(report.verdicts),
        "max_score": report.assignment.points,
        "mean": report.mean,
        "median": report.median,
        "distribution": dict(report.distribution),
        "statuses": report.statuses,
        "mistakes": [
            {"count": count, "exercise": exercise, "mistake": mistake}
            for count, exercise, mistake in report.mistakes
        ],
        "verdicts": report.verdicts,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_csv(report: Report) -> str:
    """Return one row a student and exercise."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["student", "assignment", "exercise", "points", "max_points", "status", "mistake"])
    for student, verdict in report.verdicts.items():
        for name, result in verdict["exercises"].items():
            cells = [
                student,
                verdict["assignment"],
                name,
                result["points"],
                result["max_points"],
                result["status"],
                result["mistake"] or "",
            ]
            # a spreadsheet would run a cell that starts like a formula
            rows.writerow(
                [
                    f"'{cell}"
                    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t"))
                    else cell
                    for cell in cells
                ]
            )
    return out.getvalue()


def as_html(report: Report) -> str:
    """Return the report as one page that needs nothing else."""
    name, points, total = html.escape(report.assignment.title), report.assignment.points, len(report.verdicts)
    used = [status for status in STATUSES if any(counter[status] for counter in report.statuses.values())]
    most = max((count for _, count in report.distribution), default=0) or 1
    bars = _rows(
        [span, count, f'<meter min="0" max="{most}" value="{count}">{count}</meter>']
        for span, count in report.distribution
    )
    states = _rows(
        [html.escape(exercise), *(counter[status] or "" for status in used)]
        for exercise, counter in report.statuses.items()
    )
    wrong = _rows(
        [f"{count} of {total}", html.escape(mistake), html.escape(exercise)]
        for count, exercise, mistake in report.mistakes
    )
    students = _rows([html.escape(student), f"{score:g}"] for student, score in report.scores.items())
    return _PAGE.format(
        title=name,
        headline=html.escape(report.headline),
        facts=f"{total} students · mean {report.mean:.1f} · median {report.median:g} · of {points:g} points",
        bars=bars,
        used="".join(f'<th scope="col">{status}</th>' for status in used),
        states=states,
        wrong=wrong,
        students=students,
    )


def _rows(rows: Iterable[list[Any]]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}: class report</title>
<style>
body {{ font-family: system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
body {{ color: #222; background: #fff }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #ccc; font-weight: normal }}
thead th {{ font-weight: 600 }}
meter {{ width: 16rem }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p><strong>{headline}</strong></p>
<p>{facts}</p>
<h2>Scores</h2>
<table><thead><tr>
<th scope="col">share of the points</th><th scope="col">students</th><th scope="col">how many</th>
</tr></thead><tbody>
{bars}
</tbody></table>
<h2>Exercises</h2>
<table><thead><tr><th scope="col">exercise</th>{used}</tr></thead><tbody>
{states}
</tbody></table>
<h2>Most common mistakes</h2>
<table><thead><tr>
<th scope="col">students</th><th scope="col">what they did</th><th scope="col">exercise</th>
</tr></thead><tbody>
{wrong}
</tbody></table>
<h2>Students</h2>
<table><thead><tr><th scope="col">student</th><th scope="col">points</th></tr></thead><tbody>
{students}
</tbody></table>
</main>
</body>
</html>
"""
