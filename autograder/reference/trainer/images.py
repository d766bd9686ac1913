"""Labelled images on disk: a folder a class, WebDataset shards, or scikit-learn's digits.

Each kind answers the same three questions: how many images, how many classes, what is image i. Shards are
read through an index of where each image starts, not as streams, so that any image can be had at any time:
the order of training is then the same for every number of processes, and a run goes on within an epoch.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from autograder.reference.trainer.recipe import PRIVATE, Recipe

KINDS = ("jpg", "jpeg", "png", "webp", "ppm", "bmp")  # endings of images in a shard
Entry = tuple[int, int, int]  # where an image starts in its shard, its bytes, its label


class Images(Protocol):
    """Labelled images that can be read in any order."""

    classes: int

    def __len__(self) -> int: ...
    def read(self, index: int) -> tuple[Image.Image, int]:
        """Return one image and its label."""
        ...


class FolderImages:
    """root/<class>/<any depth>/<image>, as torchvision's ImageFolder reads it: classes in order of name."""

    def __init__(self, root: Path) -> None:
        from torchvision.datasets import ImageFolder  # only here: its import takes seconds

        self.samples: list[tuple[str, int]] = ImageFolder(str(root)).samples
        self.classes = 1 + max(label for _, label in self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Return one image and its label."""
        path, label = self.samples[index]
        with Image.open(path) as image:
            image.load()
        return image, label


class ShardImages:
    """root/*.tar in the WebDataset format: <key>.jpg beside <key>.cls, which holds the label as a number.

    The index is kept beside the shards where that folder can be written: making it reads every header.
    """

    def __init__(self, root: Path) -> None:
        self.paths = sorted(root.glob("*.tar"))
        described = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        kept = root / f".index-{hashlib.sha256(repr(described).encode()).hexdigest()[:16]}.npy"
        if kept.exists():
            self.index = np.load(kept, mmap_mode="r")
        else:
            rows = [(n, *entry) for n, path in enumerate(self.paths) for entry in shard_entries(path)]
            self.index = np.array(rows, dtype=np.int64).reshape(-1, 4)
            _keep(kept, self.index)
        if not len(self.index):
            raise ValueError(f"data={str(root)!r}: its shards hold no pair <key>.jpg, <key>.cls")
        self.classes = 1 + int(self.index[:, 3].max())

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Return one image and its label."""
        shard, start, size, label = map(int, self.index[index])
        with self.paths[shard].open("rb") as file:
            file.seek(start)
            image = Image.open(io.BytesIO(file.read(size)))
        image.load()
        return image, label


def shard_entries(path: Path) -> list[Entry]:
    """Return the images of one shard in their order. Raises ValueError for an image without a label."""
    places: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                folder, _, file = member.name.rpartition("/")
                key, _, kind = file.partition(".")
                if member.isfile() and kind.lower() in KINDS:
                    places[f"{folder}/{key}"] = (member.offset_data, member.size)
                elif member.isfile() and kind == "cls":
                    labels[f"{folder}/{key}"] = int(shard.extractfile(member).read())  # type: ignore[union-attr]
    except tarfile.ReadError as error:
        raise ValueError(f"shard {path} is not a plain tar file ({error}); unpack or replace it") from error
    unlabelled = [key for key in places if key not in labels]
    if unlabelled:
        raise ValueError(f"shard {path}: image {unlabelled[0].lstrip('/')!r} has no .cls file with its label")
    return [(*place, labels[key]) for key, place in places.items()]


def _keep(path: Path, index: np.ndarray) -> None:
    """Write the index in one piece. Several processes may do so at once; a read-only folder keeps none."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, index)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)


class DigitImages:
    """scikit-learn's 1797 digits of 8 × 8 pixels, which come with the package."""

    classes = 10

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
        self.labels = digits.target

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Return one image and its label."""
        return Image.fromarray(self.pixels[index]), int(self.labels[index])


class Part:
    """Some of the images, by their numbers."""

    def __init__(self, images: Images, numbers: Sequence[int]) -> None:
        self.images, self.numbers, self.classes = images, numbers, images.classes

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Return one image and its label."""
        return self.images.read(self.numbers[index])


def find(data: str) -> Images:
    """Return the images of a folder (shards where it holds any *.tar) or, for "digits", scikit-learn's.

    Raises ValueError for a folder that is missing or holds neither.
    """
    if data == "digits":
        return DigitImages()
    root = Path(data)
    if not root.is_dir():
        raise ValueError(f"data={data!r} is not a folder; name one with shards *.tar or a folder a class")
    if any(root.glob("*.tar")):
        return ShardImages(root)
    if not any(path.is_dir() for path in root.iterdir()):
        raise ValueError(f"data={data!r} holds neither shards *.tar nor a folder for each class")
    return FolderImages(root)


def choose(recipe: Recipe, data: str | None, validation: str | None) -> tuple[Images, Images | None]:
    """Return the images to train and to evaluate on. Raises ValueError where they do not fit the recipe."""
    if data is None and recipe.data != "digits":
        why = (
            "nobody outside Google has; to use the recipe on other images,"
            if recipe.data in PRIVATE
            else "is yours to get;"
        )
        raise ValueError(
            f"recipe {recipe.name!r} trains on {recipe.data}, which {why} name a folder with --data"
        )
    chosen = find(data or recipe.data), find(validation) if validation else None
    for images in filter(None, chosen):
        if recipe.num_classes and images.classes > recipe.num_classes:
            fix = f"use data that fit, or --set num_classes={images.classes}"
            raise ValueError(f"num_classes={recipe.num_classes}, but the data have {images.classes}; {fix}")
    return chosen
