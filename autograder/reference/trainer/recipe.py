"""What to train and how, as data: the tables of the paper in `recipes/*.toml`, read into `Recipe`.

recipe = load("imagenet-b16")
recipe = load("finetune-cifar10-b16", {"lr": "0.03"})   # a value changed for one run
"""

import dataclasses
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autograder.reference.variants import VARIANTS

FOLDER = Path(__file__).parent.parent / "recipes"
PRIVATE = ("JFT-300M",)  # data that nobody outside Google has
SIZES = ("patch_size", "dim", "depth", "num_heads", "mlp_dim")
CHOICES: dict[str, tuple[Any, ...]] = {
    "optimizer": ("adam", "sgd"),
    "decay": ("linear", "cosine"),
    "augment": ("inception", "crop", "none"),
    "channels": (1, 3),
}
# Smallest value of each number, largest, and whether the largest is still allowed.
RANGES: dict[str, tuple[float, float, bool]] = {
    "num_classes": (0, 10**9, True),
    "image_size": (1, 10**5, True),
    "epochs": (0, 10**6, True),
    "steps": (0, 10**12, True),
    "batch_size": (1, 10**9, True),
    "warmup_steps": (0, 10**12, True),
    "weight_decay": (0, 100, True),
    "momentum": (0, 1, False),
    "dropout": (0, 1, False),
    "clip_norm": (0, 10**6, True),
    "averaging": (0, 1, False),
    "development_share": (0, 1, False),
    "seed": (0, 2**62, True),
}


@dataclass(frozen=True)
class Recipe:
    """One run. Raises ValueError that names the key, its value and the fix, for a value that cannot be.

    `model` is a name of `variants.VARIANTS` or a table of its sizes. `lr` is the highest learning rate; where
    the paper searches, all rates it tries, of which a run chooses one. Exactly one of `epochs` and `steps` is
    not zero. Zero also means: no clipping, no averaging, as many classes as the data have.
    """

    name: str
    model: str | dict[str, int]
    data: str
    num_classes: int
    image_size: int
    batch_size: int
    optimizer: str = "adam"
    lr: float | tuple[float, ...] = 0.0
    decay: str = "cosine"
    epochs: int = 0
    steps: int = 0
    warmup_steps: int = 0
    weight_decay: float = 0.0
    momentum: float = 0.9
    dropout: float = 0.0
    clip_norm: float = 0.0
    averaging: float = 0.0  # factor of Polyak's moving average of the weights
    augment: str = "inception"
    channels: int = 3
    representation: bool = False
    pretrained: bool = False
    development_share: float = 0.0  # of the training images, to choose the learning rate on
    seed: int = 0

    def __post_init__(self) -> None:
        for key, field in self.__dataclass_fields__.items():
            _check_type(self.name, key, getattr(self, key), field.type)
        if isinstance(self.model, dict):
            _check_sizes(self.name, self.model)
        elif self.model not in VARIANTS:
            _refuse(self.name, "model", self.model, f"choose one of {', '.join(VARIANTS)}, or give its sizes")
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                _refuse(self.name, key, getattr(self, key), f"choose one of {', '.join(map(str, choices))}")
        for key, (low, high, inclusive) in RANGES.items():
            value = getattr(self, key)
            if not low <= value <= high or (value == high and not inclusive):
                bound = f"at most {high:g}" if inclusive else f"below {high:g}"
                _refuse(self.name, key, value, f"choose a number from {low:g}, {bound}")
        if not self.rates or not all(0 < rate <= 100 for rate in self.rates):
            _refuse(self.name, "lr", self.lr, "choose a learning rate above 0, such as 1e-3")
        if bool(self.epochs) == bool(self.steps):
            _refuse(self.name, "epochs", self.epochs, f"give either epochs or steps (steps={self.steps})")
        if self.image_size % self.sizes["patch_size"]:
            patch = self.sizes["patch_size"]
            _refuse(self.name, "image_size", self.image_size, f"choose a multiple of the patch size, {patch}")

    @property
    def rates(self) -> tuple[float, ...]:
        """All learning rates."""
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes of the model, with the names of `vit.VisionTransformer`'s arguments."""
        if isinstance(self.model, dict):
            return self.model
        return {key: getattr(VARIANTS[self.model], key) for key in SIZES}

    def single_rate(self) -> float:
        """Return the learning rate of a run. Raises ValueError where the recipe leaves a choice."""
        if len(self.rates) > 1:
            listed = ", ".join(map(str, self.rates))
            _refuse(self.name, "lr", self.rates, f"choose one for the run: --set lr=<one of {listed}>")
        return self.rates[0]

    def total_steps(self, images: int) -> int:
        """Return the number of updates on so many images. Raises ValueError if too few to warm up."""
        steps = self.steps or self.epochs * images // self.batch_size
        if steps <= self.warmup_steps:
            fix = f"a run on {images} images has {steps} steps; choose fewer, or train longer"
            _refuse(self.name, "warmup_steps", self.warmup_steps, fix)
        return steps


def load(name: str, changes: dict[str, str] | None = None) -> Recipe:
    """Return a recipe, with `changes` (values as TOML writes them). Raises ValueError for unknown names."""
    recipes = load_all()
    if name not in recipes:
        raise ValueError(f"recipe={name!r} is unknown; choose one of {', '.join(recipes)}")
    return changed(recipes[name], changes) if changes else recipes[name]


def changed(recipe: Recipe, changes: dict[str, str]) -> Recipe:
    """Return the recipe with other values, given as TOML writes them; a bare word is a string."""
    values = {}
    for key, text in changes.items():
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return make(dataclasses.asdict(recipe) | values)


@cache
def load_all() -> dict[str, Recipe]:
    """Return every recipe of the folder, by name."""
    return {recipe.name: recipe for path in sorted(FOLDER.glob("*.toml")) for recipe in read(path)}


def read(path: Path) -> list[Recipe]:
    """Return the recipes of a file. A row overrides what the file says of its model, and that `common`."""
    file = tomllib.loads(path.read_text("utf-8"))
    recipes = []
    for row in file.get("rows", []):
        for model in row.get("models", []):
            own = file.get("models", {}).get(model, {}) if isinstance(model, str) else {}
            values = file.get("common", {}) | own | row | {"model": model}
            values["name"] = row["name"].format(model=str(model).replace("/", "").lower())
            recipes.append(make({key: value for key, value in values.items() if key != "models"}))
    return recipes


def make(values: dict[str, Any]) -> Recipe:
    """Return the recipe of these values. Raises ValueError for keys that are unknown or missing."""
    name, fields = values.get("name", "?"), Recipe.__dataclass_fields__
    for key, value in values.items():
        if key not in fields:
            _refuse(name, key, value, f"no such key; the keys are {', '.join(fields)}")
    for key, field in fields.items():
        if key not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"recipe {name!r} lacks {key}; add the line {key} = ...")
    if isinstance(values.get("lr"), list):
        values = values | {"lr": tuple(values["lr"])}
    return Recipe(**values)


def _check_type(name: str, key: str, value: Any, expected: Any) -> None:
    kinds = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
    if key == "model":
        fits = isinstance(value, str | dict)
    elif key == "lr":
        rates = value if isinstance(value, tuple) else (value,)
        fits = all(isinstance(rate, int | float) and not isinstance(rate, bool) for rate in rates)
    else:
        fits = isinstance(value, kinds[expected]) and (expected is bool or not isinstance(value, bool))
    if not fits:
        _refuse(name, key, value, f"write a value of type {getattr(expected, '__name__', expected)}")


def _check_sizes(name: str, sizes: dict[str, int]) -> None:
    if set(sizes) != set(SIZES) or not all(isinstance(size, int) and size > 0 for size in sizes.values()):
        _refuse(name, "model", sizes, f"give {', '.join(SIZES)}, each a whole number above 0")
    if sizes["dim"] % sizes["num_heads"]:
        _refuse(name, "model", sizes, "choose a dim that is a multiple of num_heads")


def _refuse(name: str, key: str, value: Any, fix: str) -> None:
    raise ValueError(f"recipe {name!r}: {key}={value!r} cannot be used; {fix}")
