"""Which image comes when, and what it looks like then.

The images of all epochs stand in one line, each epoch in an order of its own. Step s takes the s-th global
batch of the line; every process takes an equal part of it, in passes that fit its memory. Where a process
goes on is therefore known from the step alone.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from autograder.reference.trainer.images import Images, Part
from autograder.reference.trainer.recipe import Recipe

Place = tuple[int, int]  # epoch, image


def random_seed(*parts: int | str) -> int:
    """Return a seed that belongs to `parts` alone."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


class Line:
    """The line of all images, epoch after epoch."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.seed = images, seed
        self._order = lru_cache(2)(self._shuffled)  # a batch meets two epochs at most

    def _shuffled(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(random_seed(self.seed, "order", epoch))
        return torch.randperm(self.images, generator=generator)

    def __getitem__(self, position: int) -> Place:
        epoch, place = divmod(position, self.images)
        return epoch, int(self._order(epoch)[place])


class Passes:
    """The places in the line of every forward pass of one process, from step `first` to the last.

    Raises ValueError when processes and passes do not divide the batch.
    """

    def __init__(
        self, line: Line, batch_size: int, steps: range, rank: int = 0, world: int = 1, passes: int = 1
    ) -> None:
        if batch_size % (world * passes):
            raise ValueError(
                f"batch_size={batch_size} cannot be cut into equal parts for {world} processes and {passes} "
                f"passes; choose numbers that divide it, so that the batch stays the recipe's"
            )
        self.line, self.batch_size, self.steps = line, batch_size, steps
        self.rank, self.passes, self.images = rank, passes, batch_size // (world * passes)

    def __len__(self) -> int:
        return len(self.steps) * self.passes

    def __iter__(self) -> Iterator[list[Place]]:
        for step in self.steps:
            for part in range(self.passes):
                start = step * self.batch_size + (self.rank * self.passes + part) * self.images
                yield [self.line[start + i] for i in range(self.images)]


class Views(Dataset[tuple[Tensor, int]]):
    """What training sees of an image in an epoch: (channels, size, size) bytes and the label."""

    def __init__(self, images: Images, recipe: Recipe, training: bool = True) -> None:
        self.images, self.seed = images, recipe.seed
        self.mode = {1: "L", 3: "RGB"}[recipe.channels]
        self.transform = transform(recipe.augment if training else "none", recipe.image_size)

    def __getitem__(self, place: Place) -> tuple[Tensor, int]:
        image, label = self.images.read(place[1])
        torch.manual_seed(random_seed(self.seed, "view", *place))
        return self.transform(image.convert(self.mode)), label


def transform(augment: str, size: int) -> Callable[..., Tensor]:
    """Return the preparation of an image; its random choices come from torch's generator.

    "inception" cuts out 5 to 100 % of the area, "crop" a square of 6/7 of each side (448 to 384 pixels in
    Kolesnikov et al. 2020), and both mirror every other image; "none" resizes.
    """
    from torchvision.transforms import v2  # only here: its import takes seconds

    larger = round(size * 7 / 6)
    steps: dict[str, list] = {
        "inception": [v2.RandomResizedCrop(size, scale=(0.05, 1.0)), v2.RandomHorizontalFlip()],
        "crop": [v2.Resize((larger, larger)), v2.RandomCrop(size), v2.RandomHorizontalFlip()],
        "none": [v2.Resize((size, size))],
    }
    return v2.Compose([*steps[augment], v2.PILToTensor()])


def batches(views: Views, passes: Passes, workers: int, pin: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels pass by pass, read ahead by `workers` processes."""
    loader = DataLoader(views, batch_sampler=passes, num_workers=workers, pin_memory=pin)
    return iter(loader)


def develop(images: Images, recipe: Recipe) -> tuple[Images, Images]:
    """Split the training images into those to train on and the recipe's `development_share`.

    Raises ValueError where the share holds no image.
    """
    count = round(recipe.development_share * len(images))
    if not 0 < count < len(images):
        share = f"development_share={recipe.development_share} of {len(images)} images"
        raise ValueError(f"{share} leaves nothing to choose on; set a larger share")
    generator = torch.Generator().manual_seed(random_seed(recipe.seed, "development"))
    order = torch.randperm(len(images), generator=generator)
    return Part(images, order[count:].sort().values.tolist()), Part(images, order[:count].tolist())
