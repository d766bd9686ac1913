"""Makes what students wrote and printed safe to show in nbgrader's pages, which trust a notebook."""

import base64
import binascii
import functools
import html
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import bleach
from PIL import Image

from autograder.grading.submission import Cell

MOST_TEXT = 200_000  # characters of output kept a notebook
MOST_IMAGES = 40
MOST_PIXELS = 8_000_000
TABLE_TAGS = frozenset({
    "b", "br", "caption", "code", "dd", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "i", "li", "ol", "p", "pre", "s", "small", "span", "strong", "sub", "sup", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "u", "ul",
})  # fmt: skip
IMAGES = {"image/png": "PNG", "image/jpeg": "JPEG"}
Output = dict[str, Any]

_SCRIPT_LINK = re.compile(r"(?i)(java|vb|live)([\s\\]*)script([\s\\]*):")
# what starts a tag, but for plain formatting without attributes, which the released text uses too
_TAG = re.compile(
    r"<(?!/?(b|br|code|details|em|i|kbd|p|strong|sub|summary|sup)>|details open>)(?=[A-Za-z/!?])"
)
_DATA_LINK = re.compile(r"(?i)data([\s\\]*):([\s\\]*)(text|application|image/svg)")


def markdown(cell: Cell) -> tuple[str, dict[str, dict[str, str]]]:
    """Return a markdown cell's text, in which no HTML and no script link is left, and its images.

    A space after `<` ends every tag and changes neither a formula nor the look of code much.
    """
    images: dict[str, dict[str, str]] = {}
    for name, media, data in cell.attachments[:MOST_IMAGES]:
        image = reencoded(media, data)
        if image and re.fullmatch(r"[\w .-]{1,100}", name):
            images[name] = {media: image}
    text = text_only(cell.source)
    return re.sub(
        r"attachment:([^)\s>]*)",
        lambda found: found[0] if found[1] in images else f"attachment {found[1]}",
        text,
    ), images


def text_only(text: str) -> str:
    """Return markdown in which every link to a script and every HTML tag is broken, but plain formatting."""
    while any(pattern.search(html.unescape(text)) for pattern in (_SCRIPT_LINK, _DATA_LINK)):
        text = _DATA_LINK.sub("data \\3", _SCRIPT_LINK.sub(r"\1script ", html.unescape(text)))
    return _TAG.sub("< ", text)


def printable(text: str) -> str:
    """Return text without the control characters that a terminal would obey."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text
    )


class Outputs:
    """Sanitises the outputs of one notebook's cells and keeps their total size within bounds."""

    def __init__(self) -> None:
        self._text = MOST_TEXT
        self._images = MOST_IMAGES

    def clean(self, outputs: Iterable[Any]) -> list[Output]:
        """Return outputs that are safe to show, as nbformat has them. Never raises."""
        return [clean for output in outputs if isinstance(output, dict) for clean in self._clean(output)]

    def _clean(self, output: Output) -> Iterator[Output]:
        kind = output.get("output_type")
        if kind == "stream":
            text = self._bounded(output.get("text"))
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            if text:
                yield {"output_type": "stream", "name": name, "text": text}
        elif kind == "error":
            trace = output.get("traceback")
            lines = trace if isinstance(trace, list) else []
            yield {
                "output_type": "error",
                "ename": self._bounded(output.get("ename"))[:200],
                "evalue": self._bounded(output.get("evalue"))[:5000],
                "traceback": [self._bounded(line) for line in lines[:100]],
            }
        elif kind in ("display_data", "execute_result"):
            data = self._data(output.get("data"))
            if data:
                yield {"output_type": "display_data", "data": data, "metadata": {}}

    def _data(self, data: Any) -> dict[str, str]:
        """Return the parts of rich output that can be shown: plain text, images, tables."""
        clean: dict[str, str] = {}
        for media, value in data.items() if isinstance(data, dict) else ():
            if isinstance(value, list):
                value = "".join(line for line in value if isinstance(line, str))
            if not isinstance(value, str):
                continue
            if media == "text/plain":
                clean[media] = self._bounded(value)
            elif media == "text/html" and len(value) < 100_000:
                clean[media] = self._bounded(_html(value))
            elif media in IMAGES and self._images > 0 and (image := reencoded(media, value)):
                self._images -= 1
                clean[media] = image
        return {media: value for media, value in clean.items() if value}

    def _bounded(self, text: Any) -> str:
        if isinstance(text, list):
            text = "".join(line for line in text if isinstance(line, str))
        if not isinstance(text, str):
            return ""
        kept = text.encode("utf-8", "replace").decode().replace("\x00", "")[: self._text]
        shortened = len(kept) < len(text) and self._text > 0
        self._text -= len(kept)
        return kept + ("\n[output shortened]" if shortened else "")


def _html(text: str) -> str:
    """Return HTML of which tables and plain formatting are left, without attributes."""
    text = re.sub(r"(?is)<(style|script)\b.*?(</\1\s*>|\Z)", "", text)
    return bleach.clean(
        text,
        tags=TABLE_TAGS,
        attributes={"td": ["colspan", "rowspan"], "th": ["colspan", "rowspan"]},
        strip=True,
    )


@functools.lru_cache(maxsize=256)  # a class draws many of its pictures with the same released code
def reencoded(media: str, data: str) -> str | None:
    """Return a base64 image decoded and encoded anew, or None when it is not one or too large."""
    if media not in IMAGES:
        return None
    try:
        raw = base64.b64decode(data, validate=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw), formats=[IMAGES[media]]) as image:
                if image.width * image.height > MOST_PIXELS:
                    return None
                image.load()
                plain = image if image.mode in ("L", "RGB", "RGBA", "P") else image.convert("RGB")
                out = io.BytesIO()
                plain.copy().save(
                    out, IMAGES[media], **({"compress_level": 1} if media == "image/png" else {})
                )
    except (
        ValueError,
        OSError,
        SyntaxError,
        binascii.Error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
        MemoryError,
    ):
        return None
    return base64.b64encode(out.getvalue()).decode()
