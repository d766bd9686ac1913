"""The command line of the trainer."""

import argparse
import sys
from pathlib import Path

from autograder.reference.trainer import recipe


def main(argv: list[str] | None = None) -> int:
    """Train by a recipe; return 0, or 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m autograder.reference.trainer",
        description="Train the paper's model. Start it with torchrun to use several processes.",
    )
    add = parser.add_argument
    add("recipe", help="a recipe, or 'list' to see all of them")
    add("--data", help="training images: a folder with one folder a class, or with WebDataset shards *.tar")
    add("--out", type=Path, help="folder for checkpoints and log.jsonl")
    add("--validation", help="images to measure accuracy on")
    add(
        "--develop",
        action="store_true",
        help="train on a part and measure on the rest, to choose lr",
    )
    add("--weights", type=Path, help="pre-trained weights: step-*.pt, the authors' .npz, timm's .safetensors")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out, if there is one")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the recipe")
    add("--passes", type=int, default=1, help="forward passes that make up a batch (default: %(default)s)")
    add("--fsdp", action="store_true", help="cut the model over the processes (H/14) instead of copying it")
    add("--compile", action="store_true", help="compile the encoder's blocks with torch.compile")
    add("--precision", choices=("auto", "bf16", "float32", "float64"), default="auto")
    add("--workers", type=int, default=0, help="processes that load images (default: %(default)s)")
    add("--log-every", type=int, default=50, metavar="STEPS")
    add("--checkpoint-every", type=int, default=1000, metavar="STEPS")
    add("--evaluate-every", type=int, default=0, metavar="STEPS", help="default: at the end only")
    given = vars(parser.parse_args(argv))
    name, changes = given.pop("recipe"), given.pop("set")
    if name == "list":
        for each in recipe.load_all().values():
            print(f"{each.name:32} {each.data}, {each.image_size} px, lr {each.lr}")
        return 0
    from autograder.reference.trainer import loop  # only here: it imports torch

    try:
        if given["out"] is None:
            raise ValueError("--out is missing; name a folder for checkpoints and the log")
        pairs = dict(change.partition("=")[::2] for change in changes)
        loop.train(recipe.load(name, pairs), loop.Options(**given))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
