"""The table that a check at home shows: HTML in notebooks, plain text in terminals. Copied into `checks.py`.

Text keeps the colour of the notebook's theme, so that it is readable in light and dark.
"""

import html
import re
import textwrap
from dataclasses import dataclass, field
from typing import Any

HOLDS, FAILS, TO_DO = "holds", "does not hold", "not checked yet"
SKIPPED = "not checked here: MPS has no float64"
SIGNS = {HOLDS: "✓", FAILS: "✗", SKIPPED: "–", TO_DO: "○"}
# Readable on white and on near-black; the sign alone says the same.
COLOURS = {HOLDS: "#1a8a3c", FAILS: "#d73a3a", SKIPPED: "inherit", TO_DO: "inherit"}
TABLE = "border-collapse:collapse;max-width:60em;margin:.5em 0"
CAPTION = "caption-side:top;text-align:left;color:inherit;font-size:1.1em"
CELL = "text-align:left;vertical-align:top;padding:.35em .8em;border-top:1px solid rgba(128,128,128,.4)"


@dataclass(frozen=True)
class Row:
    """One behaviour: its title, what it pays, and how it stands."""

    title: str
    points: float
    state: str


@dataclass(frozen=True)
class Report:
    """What a check found.

    `details` are pairs of label and text about the first row that does not hold, or about an answer that is
    not written yet. `picture` is a matplotlib Figure of the failing case.
    """

    exercise: str
    points: float
    max_points: float
    rows: list[Row]
    details: list[tuple[str, str]] = field(default_factory=list)
    picture: Any = None

    @property
    def passed(self) -> bool:
        """Whether no row fails and none is left to do."""
        return not self.details

    @property
    def headline(self) -> str:
        """The outcome in a few words."""
        return f"{self.exercise}: {self.points:g} of {points(self.max_points)}"

    @property
    def summary(self) -> str:
        """The outcome and what to do about it, in one line."""
        return f"{self.headline}. {self.details[0][1]}" if self.details else self.headline

    @property
    def _explained(self) -> Row | None:
        """The row that the details belong to; None where they are about the whole answer."""
        return next((row for row in self.rows if row.state == FAILS), None)

    def __repr__(self) -> str:
        details = [_wrapped(f"{label}: {text}") for label, text in self.details]
        lines = [self.headline, *([] if self._explained else details), "  Your answer ..."]
        for row in self.rows:
            note = f", {row.state}" if row.state == SKIPPED else ""
            lines.append(f"  {SIGNS[row.state]} {row.title} ({points(row.points)}{note})")
            lines += details if row is self._explained else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        told = "".join(f"<p><i>{html.escape(label)}:</i> {_marked(text)}</p>" for label, text in self.details)
        outcome = HOLDS if self.passed else FAILS if self._explained else TO_DO
        head = f"{_sign(outcome)} <b>{html.escape(self.headline)}</b>{'' if self._explained else told}"
        titles = ("", "Your answer …", "Points")
        rows = "<tr>" + "".join(f'<th scope="col" style="{CELL}">{title}</th>' for title in titles) + "</tr>"
        for row in self.rows:
            title = html.escape(row.title) + (f" <i>({row.state})</i>" if row.state == SKIPPED else "")
            what = f"<b>{title}</b>{told}" if row is self._explained else title
            cells = (
                f'<td style="{CELL}">{each}</td>' for each in (_sign(row.state), what, f"{row.points:g}")
            )
            rows += f"<tr>{''.join(cells)}</tr>"
        return f'<table style="{TABLE}"><caption style="{CAPTION}">{head}</caption>{rows}</table>'


def _sign(state: str) -> str:
    """Return the sign of a state as HTML, with words for screen readers."""
    colour = f"color:{COLOURS[state]};font-weight:bold"
    return f'<span role="img" aria-label="{state}" title="{state}" style="{colour}">{SIGNS[state]}</span>'


def _marked(text: str) -> str:
    """Return text as HTML, with `code` in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _wrapped(text: str) -> str:
    """Return text indented under its row, at most 100 characters wide."""
    return textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 8)


def points(number: float) -> str:
    """Return "1 point", "2 points", "0.5 points"."""
    return f"{number:g} point{'' if number == 1 else 's'}"
