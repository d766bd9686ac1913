"""The command line: exit codes, sentences instead of tracebacks, JSON for scripts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autograder import cli, commands, sandbox, spec
from autograder.grading import report, report_forms
from autograder.grading.judging import Result
from autograder.grading.verdicts import Verdict

PATCHES = spec.load("patches")
COMMANDS = ("release", "check", "grade", "feedback", "report", "doctor", "mutation")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOGRADER_SECRET", "a secret for these tests")
    monkeypatch.delenv("AUTOGRADER_DEBUG", raising=False)


@pytest.fixture
def one_sandbox(warm_sandbox: sandbox.Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command use the tests' sandbox instead of a new one."""
    from contextlib import nullcontext

    monkeypatch.setattr(sandbox, "Sandbox", lambda **options: nullcontext(warm_sandbox))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command_and_its_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"autograder {command}" in text
    assert "exit codes:" in text


def test_check_prints_one_line_of_json_a_file_in_order(
    one_sandbox: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("b.py").write_text("def num_patches(height, width, patch_size):\n    return 0\n")
    Path("a.ipynb").write_text("{broken")
    code, out, _ = run(
        capsys, "check", "patches", "b.py", "a.ipynb", "c.txt", "b.py", "--json", "--workers", "1"
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == commands.DONE
    assert [line["file"] for line in lines] == ["b.py", "a.ipynb", "c.txt", "b.py"]
    assert {key: lines[0][key] for key in ("assignment", "score", "max_score")} == {
        "assignment": "patches",
        "score": 0,
        "max_score": 21,
    }
    assert {name: result["status"] for name, result in lines[0]["exercises"].items()} == {
        "num_patches": "failed",
        "patchify": "missing",
        "unpatchify": "missing",
        "projection_to_conv": "missing",
    }
    assert "not valid JSON" in lines[1]["exercises"]["patchify"]["message"]


def test_check_explains_to_people(one_sandbox: None, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.py").write_text("def num_patches(height, width, patch_size):\n    return 0\n")
    code, out, _ = run(capsys, "check", "patches", "b.py")
    assert code == commands.DONE
    assert "b.py: 0 of 21 points" in out
    assert "0 of 3 checks hold" in out


def test_no_sandbox_is_loud(one_sandbox: None, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.py").write_text("x = 1")
    code, _, err = run(capsys, "check", "patches", "b.py", "--unsafe-no-sandbox")
    assert code == commands.DONE
    assert "student code runs with YOUR rights on THIS machine" in err


def test_without_isolation_nothing_is_graded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**options: Any) -> None:
        raise sandbox.Unavailable("no user namespaces; fix: sysctl kernel.unprivileged_userns_clone=1")

    monkeypatch.setattr(sandbox, "Sandbox", refuse)
    Path("b.py").write_text("x = 1")
    code, out, err = run(capsys, "check", "patches", "b.py")
    assert (code, out) == (commands.NO_SANDBOX, "")
    assert "fix: sysctl" in err


MISUSE = {
    "unknown assignment": (
        ["check", "nonsense", "x.py"],
        "no assignment is called 'nonsense'; there are: patches",
    ),
    "no course folder": (["grade", "patches", "--course", "nowhere"], "there is no folder nowhere"),
    "not released": (["grade", "patches"], "first run: autograder release patches"),
    "no source": (["release", "patches"], "nbgrader_config.py"),
    "no report yet": (["report", "patches"], "first run: autograder grade patches"),
}


@pytest.mark.parametrize(("arguments", "words"), MISUSE.values(), ids=MISUSE.keys())
def test_what_cannot_start_is_said_in_a_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (commands.CANNOT_START, "")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_wrong_number_of_workers_is_refused(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["grade", "patches", "--workers", workers])
    assert end.value.code == commands.CANNOT_START
    assert "is not a number of at least 1" in capsys.readouterr().err


def test_a_broken_database_is_said_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gradebook.db").write_text("no database " * 100)
    code, _, err = run(capsys, "grade", "patches")
    assert code == commands.CANNOT_START
    assert "the gradebook cannot be used" in err


def test_a_fault_of_the_autograder_names_the_way_to_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spec, "load", lambda name: 1 // 0)
    code, _, err = run(capsys, "report", "patches")
    assert code == commands.FAULTY
    assert "ZeroDivisionError" in err
    assert "AUTOGRADER_DEBUG=1" in err


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autograder", "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("secret", [None, "short"], ids=["none yet", "too short"])
def test_the_secret_is_made_once_and_kept(
    secret: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from autograder.grading import secret as of

    monkeypatch.delenv("AUTOGRADER_SECRET")
    if secret:
        (of.own_folder(tmp_path) / "secret").write_text(secret)
        with pytest.raises(ValueError, match="too short"):
            of.secret(tmp_path)
        return
    made = of.secret(tmp_path)
    assert "Made the course's secret" in capsys.readouterr().err
    assert of.secret(tmp_path) == made
    assert capsys.readouterr().err == ""
    assert (tmp_path / ".autograder" / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".autograder" / ".gitignore").read_text() == "*\n"


# The class report


def outcome(score: float, **mistakes: str) -> Verdict:
    results = {e.name: Result(0, e.points, "passed", "", mistakes.get(e.name)) for e in PATCHES.exercises}
    first = next(iter(results))
    results[first] = Result(score, 21, "partial", "", mistakes.get(first))
    return Verdict("f", "patches", results)


@pytest.fixture
def graded() -> None:
    verdicts = {
        "ada": outcome(21),
        "bob": outcome(10, patchify="flattened channel first"),
        "<b>": outcome(0, patchify="flattened channel first", unpatchify="left the channels last"),
    }
    report.keep(Path(".autograder"), "patches", verdicts, verdicts)


def test_the_report_counts_scores_statuses_and_mistakes(
    graded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "report", "patches")
    assert code == commands.DONE
    assert "2 of 3 flattened channel first (patchify)" in out.splitlines()[0]
    assert "3 students · mean 10.3 · median 10 · of 21 points" in out
    assert [line.split()[-1] for line in out.splitlines() if " %  " in line] == [
        "1",
        "0",
        "0",
        "0",
        "1",
        "0",
        "0",
        "0",
        "0",
        "0",
        "1",
    ]
    assert "1 of 3  left the channels last  (unpatchify)" in out


def test_the_report_is_written_to_files(graded: None, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = run(capsys, "report", "patches", "--json", "r.json", "--csv", "r.csv", "--html", "r.html")
    assert code == commands.DONE
    content = json.loads(Path("r.json").read_text())
    assert content["mistakes"][0] == {
        "count": 2,
        "exercise": "patchify",
        "mistake": "flattened channel first",
    }
    assert content["statuses"]["patchify"] == {"passed": 3}
    assert Path("r.csv").read_text().splitlines()[1] == "<b>,patches,num_patches,0,21,partial,"
    page = Path("r.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "http" not in page


def test_the_csv_report_starts_no_formula() -> None:
    made = report.Report(PATCHES, {"=1+1": outcome(3).to_json()})
    assert report_forms.as_csv(made).splitlines()[1].startswith("'=1+1,")


def test_an_empty_class_has_a_report() -> None:
    made = report.Report(PATCHES, {})
    assert "nothing has been graded yet" in report_forms.as_text(made)
    assert json.loads(report_forms.as_json(made))["students"] == 0
    assert report_forms.as_html(made)
