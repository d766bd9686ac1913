"""What students wrote and printed is shown, but obeyed by no browser and no terminal."""

import base64
import html
import io
import re

import pytest
from PIL import Image

from autograder.grading.sanitise import MOST_TEXT, Outputs, markdown, printable, reencoded, text_only
from autograder.grading.submission import Cell

SCRIPTS = [
    "[x](javascript:alert(1))",
    "[x](JavaScript:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](javascript\\:alert(1))",
    "[x](javascript:1) [y](java&amp;#115;cript:alert(1))",
    "[x]: vbscript:alert(1)",
    "$\\href{javascript:alert(1)}{x}$",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
]


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_link_to_a_script_is_broken(text: str) -> None:
    shown = html.unescape(html.unescape(text_only(text))).replace("\\", "").lower()
    assert not re.search(r"(javascript|vbscript|data):\S", shown)


@pytest.mark.parametrize(
    "tag", ["<script>", "</script>", "<img src=x>", "<b onclick=x>", "<!-- x", "<?php", "<details onclick=x>"]
)
def test_a_tag_is_broken(tag: str) -> None:
    assert text_only(tag) == "< " + tag[1:]


@pytest.mark.parametrize(
    "text",
    [
        "$a < b$",
        "2 <3",
        "<details><summary>Hint</summary>",
        "x<sup>2</sup>",
        "the data: 3 rows",
        "`x -> y`",
        "[x](https://a.b/c)",
        "> quoted",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert text_only(text) == text


def png(width: int = 3) -> str:
    out = io.BytesIO()
    Image.new("RGB", (width, 3)).save(out, "PNG")
    return base64.b64encode(out.getvalue() + b"<script>").decode()


def test_a_picture_is_encoded_anew() -> None:
    data = base64.b64decode(str(reencoded("image/png", png())))
    assert Image.open(io.BytesIO(data)).size == (3, 3)
    assert b"script" not in data


@pytest.mark.parametrize(
    ("media", "data"),
    [
        ("image/png", "no picture"),
        ("image/png", ""),
        ("image/svg+xml", png()),
        ("image/jpeg", png()),
        ("image/png", png(3_000_000)),
    ],
    ids=["text", "nothing", "svg", "png called jpeg", "nine million pixels"],
)
def test_what_is_no_reasonable_picture_is_left_out(media: str, data: str) -> None:
    assert reencoded(media, data) is None


def test_an_attachment_keeps_its_picture_and_loses_everything_else() -> None:
    text, images = markdown(
        Cell(
            "markdown",
            "![a](attachment:a.png) ![b](attachment:b.svg)",
            attachments=(("a.png", "image/png", png()), ("b.svg", "image/svg+xml", "<svg>")),
        )
    )
    assert text == "![a](attachment:a.png) ![b](attachment b.svg)"
    assert list(images) == ["a.png"]


def test_text_is_bounded_for_the_notebook_as_a_whole() -> None:
    outputs = Outputs()
    first = outputs.clean([{"output_type": "stream", "name": "stdout", "text": "x" * (MOST_TEXT - 1)}])
    second = outputs.clean([{"output_type": "stream", "name": "stdout", "text": "y" * 100}])
    third = outputs.clean([{"output_type": "stream", "name": "stdout", "text": "z"}])
    assert len(first[0]["text"]) == MOST_TEXT - 1
    assert second[0]["text"] == "y\n[output shortened]"
    assert third == []


DAMAGED = [
    3,
    None,
    {},
    {"output_type": "stream"},
    {"output_type": "stream", "name": 3, "text": 5},
    {"output_type": "display_data", "data": 3},
    {"output_type": "display_data", "data": {"text/plain": {}, "text/html": 3}},
    {"output_type": "display_data", "data": {"application/javascript": "alert(1)"}},
    {"output_type": "heart", "text": "x"},
]


@pytest.mark.parametrize("output", DAMAGED, ids=str)
def test_a_damaged_output_is_left_out(output: object) -> None:
    assert Outputs().clean([output]) == []


def test_a_damaged_error_is_still_an_error() -> None:
    (error,) = Outputs().clean([{"output_type": "error", "ename": 3, "traceback": "no list"}])
    assert error == {"output_type": "error", "ename": "", "evalue": "", "traceback": []}


def test_a_table_stays_and_its_scripts_go() -> None:
    table = "<style>x</style><table onclick=a()><tr><td colspan=2 style=x>1 &lt; 2</td></tr></table>"
    table += "<script>evil()</script>"
    (shown,) = Outputs().clean([{"output_type": "display_data", "data": {"text/html": table}}])
    assert (
        shown["data"]["text/html"] == '<table><tbody><tr><td colspan="2">1 &lt; 2</td></tr></tbody></table>'
    )


def test_a_terminal_gets_no_control_characters() -> None:
    assert (
        printable("a\x1b[31m\x07b\nc\td") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b\nc\td"
    )
