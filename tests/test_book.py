"""The book: chapters have their parts, the strict build passes, and pages need nothing from elsewhere."""

import fcntl
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from bs4 import BeautifulSoup

from autograder import spec

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
BUILD = ROOT / "_build"
PAGES = BUILD / "html"
COMMAND = ["build", "book", "--config", "_config.yml", "--path-output", ".", "-W", "-n", "--keep-going"]
CHAPTERS = sorted(file.stem for file in BOOK.glob("[0-9][0-9]_*.md"))
ASSIGNMENTS = [spec.load(name) for name in spec.names()]
FIRST = ["What you will be able to do", "Before you start"]
LAST = ["Common mistakes", "Test yourself", "Your turn", "Read more"]
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS)
every_assignment = pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=lambda assignment: assignment.name)


def headings(page: str) -> list[str]:
    """Return the second-level headings of a page, without code cells."""
    text = re.sub(r"^```.*?^```$", "", (BOOK / f"{page}.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^## (.+)$", text, flags=re.MULTILINE)


def listed_pages() -> list[str]:
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text())
    return [contents["root"], *(page["file"] for part in contents["parts"] for page in part["chapters"])]


@pytest.mark.parametrize("page", sorted(file.stem for file in BOOK.glob("*.md")))
def test_page_is_in_the_table_of_contents(page: str) -> None:
    assert page in listed_pages()


def test_chapters_are_listed_in_the_order_of_their_numbers() -> None:
    assert [page for page in listed_pages() if page in CHAPTERS] == CHAPTERS


@every_chapter
def test_chapter_begins_and_ends_with_the_parts_that_readers_expect(chapter: str) -> None:
    found = headings(chapter)
    own_parts = [part for part in LAST if part != "Your turn" or chapter in {a.chapter for a in ASSIGNMENTS}]
    assert found[:2] == FIRST
    assert found[-len(own_parts) :] == own_parts


@every_chapter
def test_chapter_has_a_figure_made_by_code_and_folded_answers(chapter: str) -> None:
    text = (BOOK / f"{chapter}.md").read_text()
    assert re.search(r"^  figure:$", text, flags=re.MULTILINE)
    assert text.count(":::{dropdown}") >= 3


@every_assignment
def test_assignment_has_a_chapter_with_its_card_and_its_mistakes(assignment: spec.Assignment) -> None:
    text = (BOOK / f"{assignment.chapter}.md").read_text()
    assert f"```{{assignment}} {assignment.name}\n" in text
    assert f"```{{mistakes}} {assignment.name}" in text


@pytest.mark.parametrize("name", ["package.json", "package-lock.json"])
def test_npm_files_hold_no_address(name: str) -> None:
    assert "://" not in (BOOK / name).read_text()


@pytest.fixture(scope="session")
def pages() -> list[Path]:
    """Build the book as `make book` does and return its pages; unchanged ones come from the cache."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "book.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time, also among parallel test processes
        program = Path(sys.executable).with_name("jupyter-book")
        done = subprocess.run([program, *COMMAND], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return sorted(PAGES.glob("*.html"))


def parsed(pages: list[Path]) -> Iterator[tuple[Path, BeautifulSoup]]:
    for page in pages:
        yield page, BeautifulSoup(page.read_text(), "html.parser")


def test_strict_build_makes_every_listed_page(pages: list[Path]) -> None:
    assert set(listed_pages()) <= {page.stem for page in pages}


@every_assignment
def test_chapter_shows_the_points_the_minutes_and_every_known_mistake(
    assignment: spec.Assignment, pages: list[Path]
) -> None:
    text = BeautifulSoup((PAGES / f"{assignment.chapter}.html").read_text(), "html.parser").get_text(" ")
    names = [mistake.name for exercise in assignment.exercises for mistake in exercise.mistakes]
    plain = re.sub(r"[\s`’']+", " ", text)

    assert f"{assignment.points:g} points, about {assignment.minutes} minutes" in plain
    assert [name for name in names if re.sub(r"[\s`’']+", " ", name) not in plain] == []


@every_assignment
def test_download_holds_what_was_released(assignment: spec.Assignment, pages: list[Path]) -> None:
    released = (ROOT / "assignments" / assignment.name).glob("[!_.]*")
    expected = {f"{assignment.name}/{file.name}": file.read_bytes() for file in released if file.is_file()}
    packed = next((PAGES / "_downloads").rglob(f"{assignment.name}.zip"))
    with ZipFile(packed) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == expected


def test_no_page_loads_anything_from_another_host(pages: list[Path]) -> None:
    loads = {
        "script": "src",
        "link": "href",
        "img": "src",
        "iframe": "src",
        "source": "src",
        "object": "data",
    }
    found = [
        (page.name, element[attribute])
        for page, soup in parsed(pages)
        for tag, attribute in loads.items()
        for element in soup.find_all(tag, attrs={attribute: True})
        if re.match(r"(https?:)?//", element[attribute])
    ]
    assert found == []


def test_no_script_in_a_page_names_another_host(pages: list[Path]) -> None:
    found = [
        (page.name, script.string[:100])
        for page, soup in parsed(pages)
        for script in soup.find_all("script")
        if script.string and re.search(r"https?://(?!www\.w3\.org)", script.string)
    ]
    assert found == []


def test_no_style_sheet_loads_anything_from_another_host(pages: list[Path]) -> None:
    sheets = (PAGES / "_static").rglob("*.css")
    pattern = r"""(@import|url\()\s*["']?(https?:)?//"""
    assert [sheet.name for sheet in sheets if re.search(pattern, sheet.read_text())] == []


def test_every_file_that_a_page_loads_or_offers_is_there(pages: list[Path]) -> None:
    missing = []
    for page, soup in parsed(pages):
        elements = soup.find_all(["script", "link", "img", "a"])
        targets = [element.get("src") or element.get("href") or "#" for element in elements]
        local = [re.split("[?#]", target)[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
        missing += [(page.name, file) for file in local if file and not (page.parent / file).exists()]
    assert missing == []


def test_every_picture_has_a_text_for_those_who_cannot_see_it(pages: list[Path]) -> None:
    found = [
        (page.name, image.get("src"))
        for page, soup in parsed(pages)
        for image in soup.find_all("img")
        if not image.get("alt", "").strip() or image["alt"].endswith(".png")
    ]
    assert found == []


def test_no_page_names_the_folder_it_was_built_in(pages: list[Path]) -> None:
    assert [page.name for page in pages if str(ROOT) in page.read_text()] == []


# Put into a copy of the page: says what cannot be loaded, and in the end lists what was asked of a network.
WATCH = """<script>
addEventListener("error", (event) => {
  const address = event.target.src || event.target.href;
  if (address) console.error("Uncaught: cannot load " + address);
}, true);
addEventListener("load", () => setTimeout(() => {
  const fonts = [...document.fonts].filter((font) => font.status === "error").map((font) => font.family);
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.body.dataset.missing = [...fonts, ...asked].join(" ");
}, 5000));
</script>"""


def opened(page: Path, folder: Path) -> tuple[BeautifulSoup, str]:
    """Open a page from the file system without a network; return what it becomes, and the console."""
    for file in PAGES.iterdir():
        (folder / file.name).symlink_to(file)
    copy = folder / f"watched_{page.name}"
    copy.write_text(page.read_text().replace("<head>", f"<head>{WATCH}", 1))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update", "--proxy-server=127.0.0.1:9",
               f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
               "--virtual-time-budget=30000", "--dump-dom", copy.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return BeautifulSoup(done.stdout, "html.parser"), console


@pytest.mark.browser
@every_chapter
def test_chapter_works_from_a_file_system_without_a_network(
    chapter: str, pages: list[Path], tmp_path: Path
) -> None:
    page = PAGES / f"{chapter}.html"
    source = BeautifulSoup(page.read_text(), "html.parser")
    soup, console = opened(page, tmp_path)

    assert "Uncaught" not in console, console
    assert soup.body["data-missing"] == ""
    assert len(soup.select("mjx-container")) == len(source.select(".math"))
    assert not soup.select("mjx-merror")
    assert len(soup.select(".widget-vbox")) == len(source.select('script[type$="widget-view+json"]'))
