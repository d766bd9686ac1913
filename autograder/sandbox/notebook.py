"""Runs cells as Jupyter would, and keeps a bounded amount of what they show."""

import base64
import builtins
import io
import sys
import traceback
import types
from typing import Any, ClassVar

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

_KINDS = ("text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml")


class Record:
    """The outputs of one cell, as in a notebook file, cut at `text` and `images` characters."""

    def __init__(self, text: int, images: int) -> None:
        self.outputs: list[dict[str, Any]] = []
        self.text, self.images, self.cut = text, images, 0

    def stream(self, name: str, text: str) -> None:
        """Keep what was written to "stdout" or "stderr"."""
        kept = self._bounded(text)
        last = self.outputs[-1] if self.outputs else {}
        if kept and last.get("name") == name:
            last["text"].append(kept)
        elif kept:
            self.outputs.append({"output_type": "stream", "name": name, "text": [kept]})

    def display(self, data: dict[str, Any], **more: Any) -> None:
        """Keep a picture or a value that was shown."""
        kept: dict[str, Any] = {
            kind: self._bounded(data[kind]) for kind in _KINDS if isinstance(data.get(kind), str)
        }
        image = data.get("image/png")
        if image is not None:
            image = base64.b64encode(image).decode() if isinstance(image, bytes) else str(image)
            if len(image) <= self.images:
                self.images -= len(image)
                kept["image/png"] = image
            else:
                kept["text/plain"] = "[a picture too large to keep]"
        self.outputs.append({"output_type": "display_data", "data": kept, "metadata": {}, **more})

    def error(self, error: BaseException, shown: list[str]) -> None:
        """Keep an exception with its traceback."""
        name, value = type(error).__name__, self._bounded(str(error)[:2000])
        lines = [self._bounded(line) for line in shown[-30:]]
        self.outputs.append({"output_type": "error", "ename": name, "evalue": value, "traceback": lines})

    def finished(self) -> list[dict[str, Any]]:
        """Return the outputs, with a note of how much was cut."""
        if self.cut:
            self.text = 100
            self.stream("stdout", f"\n[{self.cut:,} more characters were cut]\n")
        for output in self.outputs:
            if output["output_type"] == "stream":
                output["text"] = "".join(output["text"])
        return self.outputs

    def _bounded(self, text: str) -> str:
        kept = text[: max(self.text, 0)]
        self.text -= len(kept)
        self.cut += len(text) - len(kept)
        return kept


class _Stream(io.TextIOBase):
    """Takes the place of sys.stdout or sys.stderr."""

    encoding = "utf-8"

    def __init__(self, shell: "Notebook", name: str) -> None:
        self._shell, self._name = shell, name

    def write(self, text: str) -> int:
        self._shell.record.stream(self._name, text)
        return len(text)

    def writable(self) -> bool:
        return True


class _Publisher(DisplayPublisher):
    def publish(self, data: Any, metadata: Any = None, *ignored: Any, **more: Any) -> None:
        self.shell.record.display(data)

    def clear_output(self, wait: bool = False) -> None:
        self.shell.record.outputs.clear()


class _Hook(DisplayHook):
    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self.shell.record.display(format_dict, output_type="execute_result", execution_count=None)

    def finish_displayhook(self) -> None:
        self._is_active = False


class Notebook(InteractiveShell):
    """IPython without a terminal, a history or a shell."""

    record: Record
    limits: ClassVar[tuple[int, int]]

    @classmethod
    def prepare(cls, text: int, images: int) -> "Notebook":
        """Return the one notebook of this process, with matplotlib drawing into it."""
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        # A tight box means drawing twice, and compression is most of the rest: pictures cost more than cells.
        config.InlineBackend.print_figure_kwargs = {"bbox_inches": None, "pil_kwargs": {"compress_level": 1}}
        cls.limits = (text, images)
        cls.record = Record(0, 0)
        shell: Notebook = cls.instance(config=config, displayhook_class=_Hook, display_pub_class=_Publisher)
        shell.compile.get_code_name = lambda raw, code, number: f"<cell {number}>"
        shell.enable_matplotlib("inline")
        import ipywidgets  # noqa: F401  (slow to import, and students use it)
        import matplotlib.pyplot as plt

        shell.run(  # first use of each part is slow: magics, displaying a value, drawing text
            "%matplotlib inline\nimport matplotlib.pyplot as plt\n"
            "plt.plot([1, 2]); plt.title('x'); plt.show()\n1/0",
            0,
        )
        plt.close("all")
        shell.reset(new_session=True)
        return shell

    def run(self, source: str, index: int) -> tuple[list[dict[str, Any]], str | None]:
        """Run a cell; return its outputs and its error, for example "NameError: name 'x' is not defined"."""
        self.record = Record(*self.limits)
        self.execution_count = index + 1
        stdout, stderr = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Stream(self, "stdout"), _Stream(self, "stderr")
        try:
            result = self.run_cell(source, store_history=False)
        finally:
            sys.stdout, sys.stderr = stdout, stderr
        error = result.error_before_exec or result.error_in_exec
        return self.record.finished(), error and f"{type(error).__name__}: {error}"[:500]

    def showtraceback(self, exc_tuple: Any = None, *arguments: Any, **more: Any) -> None:
        """Keep the traceback, without the frames that are ours and not the student's."""
        _, error, trace = exc_tuple or sys.exc_info()
        while trace and "IPython" in trace.tb_frame.f_code.co_filename:
            trace = trace.tb_next
        if error is not None:
            self.record.error(error, traceback.format_exception(type(error), error, trace, limit=-20))

    def showsyntaxerror(self, *arguments: Any, **more: Any) -> None:
        """Keep a syntax error."""
        self.showtraceback()

    def show_usage_error(self, exc: BaseException) -> None:
        """Keep an error in the use of a magic."""
        self.record.error(exc, [str(exc)])

    def enable_gui(self, gui: Any = None) -> None:
        """Do nothing: there is no window."""

    def ask_exit(self) -> None:
        """Do nothing: `exit` in a cell ends nothing here."""

    def system(self, cmd: str) -> None:
        """Refuse `!command`, and let the cell go on."""
        print("[commands do not run when your notebook is graded]")

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> list[str]:
        """Refuse `x = !command`, and let the cell go on."""
        self.system(cmd)
        return []


def refuse_input() -> None:
    """Let input() raise at once: nobody is there to type."""

    def refused(prompt: object = "") -> str:
        raise EOFError("input() cannot be answered when your notebook is graded")

    builtins.input = refused


class _Checks(types.ModuleType):
    """Has whatever is imported from it, and all of it does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **more: None


def stub_checks() -> None:
    """Let `from checks import check` work. The checks at home are not run here."""
    sys.modules["checks"] = _Checks("checks")
