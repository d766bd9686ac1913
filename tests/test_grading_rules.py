"""What an exercise's definition may use: packages by `allow`, shortcuts by `forbid`, under any name."""

import pytest

from autograder.grading.names import Notebook
from autograder.grading.rules import findings

ALLOW = frozenset({"torch", "numpy"})
FORBID = frozenset(
    {"torch.nn.functional.softmax", "torch.softmax", "torch.Tensor.softmax", "torch.nn.Softmax"}
)
HONEST = "def softmax(x, dim):\n    e = (x - x.amax(dim, True)).exp()\n    return e / e.sum(dim, True)"


def found(*cells: str, forbid: frozenset[str] = FORBID, ran: list[bool] | None = None) -> list[str]:
    return [finding.what for finding in findings(Notebook(cells, ran), "answer", forbid, ALLOW)]


HIDDEN = {
    "plainly": ("import torch\ndef answer(x, dim): return torch.softmax(x, dim)",),
    "by a module's alias": ("import torch.nn.functional as G\ndef answer(x, d): return G.softmax(x, d)",),
    "by an imported alias": ("from torch import softmax as s", "def answer(x, d): return s(x, d)"),
    "by an assigned alias": ("import torch\nsm = torch.softmax", "def answer(x, d): return sm(x, d)"),
    "by an alias of an alias": (
        "import torch\nm = torch.nn\ng = m.functional",
        "def answer(x, d): return g.softmax(x, d)",
    ),
    "by unpacking": ("import torch\na, b = torch.exp, torch.softmax\ndef answer(x, d): return b(x, d)",),
    "as a method": ("def answer(x, d): return x.softmax(d)",),
    "as a method of a result": ("def answer(x, d): return (x + 0).softmax(d)",),
    "as a class": ("from torch import nn\ndef answer(x, d): return nn.Softmax(d)(x)",),
    "with getattr": ("import torch\ndef answer(x, d): return getattr(torch, 'softmax')(x, d)",),
    "with getattr in pieces": (
        "import torch\ndef answer(x, d): return getattr(torch, 'soft' + 'max')(x, d)",
    ),
    "with a computed getattr": (
        "import torch\ndef answer(x, d): return getattr(torch, 'xamtfos'[::-1])(x, d)",
    ),
    "with getattr on a tensor": ("def answer(x, d): return getattr(x, 'softmax')(d)",),
    "in the module's dict": ("import torch\ndef answer(x, d): return vars(torch)['softmax'](x, d)",),
    "in a function that it calls": (
        "import torch\ndef f(x, d): return torch.softmax(x, d)",
        "def answer(x, d): return f(x, d)",
    ),
    "two calls away": (
        "import torch\ndef f(x): return torch.softmax(x, 0)\ndef g(x): return f(x)",
        "def answer(x, d): return g(x)",
    ),
    "in a method of a class": (
        "import torch\nclass Tool:\n    def run(self, x): return torch.softmax(x, -1)",
        "def answer(x, d): return Tool().run(x)",
    ),
    "in an object made before": (
        "import torch\nclass Tool:\n    def run(self, x): return torch.softmax(x, -1)\ntool = Tool()",
        "def answer(x, d): return tool.run(x)",
    ),
    "in a dict": (
        "import torch\nops = {}\nops['s'] = torch.softmax",
        "def answer(x, d): return ops['s'](x, d)",
    ),
    "in a list": (
        "import torch\nops = []\nops.append(torch.softmax)",
        "def answer(x, d): return ops[0](x, d)",
    ),
    "put into a class afterwards": (
        "import torch\nclass T: pass",
        "T.run = torch.softmax",
        "def answer(x, d): return T.run(x, d)",
    ),
    "as a default value": ("import torch\ndef answer(x, d, f=torch.softmax): return f(x, d)",),
    "as a decorator": ("import torch\ndef swap(f): return torch.softmax\n@swap\ndef answer(x, d): return x",),
    "as the answer itself": ("import torch\nanswer = torch.softmax",),
    "as a lambda": ("import torch\nanswer = lambda x, d: torch.softmax(x, d)",),
    "imported inside": (
        "def answer(x, d):\n    from torch.nn import functional\n    return functional.softmax(x, d)",
    ),
    "imported with a star": ("from torch.nn.functional import *\ndef answer(x, d): return softmax(x, d)",),
    "by another of torch's names": ("import torch\ndef answer(x, d): return torch.special.softmax(x, d)",),
    "from torch._C": ("import torch\ndef answer(x, d): return torch._C._nn.anything(x)",),
    "from torch.ops": ("import torch\ndef answer(x, d): return torch.ops.aten._softmax(x, d, False)",),
    "in eval": ("def answer(x, d): return eval('torch.soft' + 'max')(x, d)",),
    "in exec": ("def answer(x, d): exec('y = 1')",),
    "with __import__": ("def answer(x, d): return __import__('torch').softmax(x, d)",),
    "with importlib": (
        "import importlib\ndef answer(x, d): return importlib.import_module('torch').softmax(x, d)",
    ),
    "in a branch": ("import torch\nif True:\n    s = torch.softmax\ndef answer(x, d): return s(x, d)",),
    "in a cell with a magic": ("%%time\nimport torch\ndef answer(x, d): return torch.softmax(x, d)",),
    "behind a definition that never runs": (
        "import torch\ndef answer(x, d): return torch.softmax(x, d)",
        "if False:\n    def answer(x, d): return x",
    ),
    "set as a global by a function": (
        "import torch\ndef setup():\n    global s\n    s = torch.softmax\nsetup()",
        "def answer(x, d): return s(x, d)",
    ),
    "while a comprehension uses the name": (
        "from torch import softmax",
        "def answer(x, d):\n    [softmax for softmax in ()]\n    return softmax(x)",
    ),
}


@pytest.mark.parametrize("cells", HIDDEN.values(), ids=HIDDEN.keys())
def test_a_forbidden_function_is_found(cells: tuple[str, ...]) -> None:
    assert found(*cells)


FAIR = {
    "the student's own function of that name": (HONEST, "def answer(x, d): return softmax(x, d)"),
    "a function of that name inside": (
        "def answer(x, d):\n    def softmax(y): return y.exp()\n    return softmax(x)",
    ),
    "the student's own method of that name": (
        "class Tool:\n    def softmax(self, x): return x.exp()\ndef answer(x, d): return Tool().softmax(x)",
    ),
    "a call in a cell that the answer does not use": (
        "import torch\nprint(torch.softmax(torch.ones(2), 0))",
        "def answer(x, d): return x.exp()",
    ),
    "a comparison with the library afterwards": (
        "import torch\ndef answer(x, d): return x.exp()",
        "torch.allclose(answer(torch.ones(2), 0), torch.softmax(torch.ones(2), 0))",
    ),
    "an earlier attempt, written anew": (
        "import torch\ndef answer(x, d): return torch.softmax(x, d)",
        "def answer(x, d): return x.exp()",
    ),
    "a variable of a function named like a helper": (
        "import torch\ndef weights(x): return torch.softmax(x, 0)",
        "def answer(x, d):\n    weights = x.exp()\n    return weights / weights.sum(d, True)",
    ),
    "a comment and a docstring": ("def answer(x, d):\n    'softmax'\n    return x.exp()  # torch.softmax",),
    "another function of torch": ("import torch\ndef answer(x, d): return torch.exp(x)",),
    "eval as a method": ("from torch import nn\ndef answer(x, d): return nn.Linear(2, 2).eval()(x)",),
    "a broken cell elsewhere": ("def (", "def answer(x, d): return x.exp()"),
}


@pytest.mark.parametrize("cells", FAIR.values(), ids=FAIR.keys())
def test_a_fair_answer_breaks_no_rule(cells: tuple[str, ...]) -> None:
    assert found(*cells) == []


def test_a_definition_behind_an_error_does_not_replace_the_earlier_one() -> None:
    cells = (
        "import torch\ndef answer(x, d): return torch.softmax(x, d)",
        "1 / 0\ndef answer(x, d): return x.exp()",
    )
    assert found(*cells, ran=[True, False]) == ["torch.softmax"]


def test_a_finding_says_where() -> None:
    cells = ("import torch.nn.functional as G", "def answer(x, d):\n    return G.softmax(x, d)")
    first = findings(Notebook(cells), "answer", FORBID, ALLOW)[0]
    assert str(first) == "`torch.nn.functional.softmax` (code cell 2, line 2: `return G.softmax(x, d)`)"


@pytest.mark.parametrize(
    "cells",
    [
        ("import seaborn as sns\ndef answer(x): return sns.load(x)",),
        ("from timm.layers import Mlp\ndef answer(x): return Mlp(3)(x)",),
        ("def answer(x):\n    import timm\n    return x",),
        ("import timm as t\ndef f(x): return t.create_model(x)\ndef answer(x): return f(x)",),
        ("from timm import *\ndef answer(x): return create_model(x)",),
        ("import importlib\ndef answer(x): return importlib.import_module('timm')",),
    ],
    ids=["alias", "from", "inside", "in a helper", "star", "importlib"],
)
def test_a_package_that_is_not_allowed_is_found_where_the_answer_uses_it(cells: tuple[str, ...]) -> None:
    result = findings(Notebook(cells), "answer", frozenset(), ALLOW)
    assert result
    assert result[0].package


@pytest.mark.parametrize(
    "cells",
    [
        ("import seaborn", "def answer(x): return x"),
        ("import seaborn as sns\nsns.set_theme()", "import torch\ndef answer(x): return torch.exp(x)"),
        ("import math, functools\ndef answer(x): return math.sqrt(functools.reduce(max, x))",),
    ],
    ids=["stray import", "stray use", "standard library"],
)
def test_an_import_elsewhere_costs_nothing(cells: tuple[str, ...]) -> None:
    assert found(*cells, forbid=frozenset()) == []


def test_code_nested_too_deeply_to_be_read_does_not_stop_the_search() -> None:
    deep = "def answer(x, d): return " + "(" * 150 + "x" + ")" * 150 + "\n"
    chain = "y = x" + ".a" * 3000
    assert found(deep, chain) == []
