"""Measure the small model with [CLS] and with the mean of the patches, for several seeds.

python book/pool_comparison.py      # about five minutes on one core; writes pool_comparison.csv beside it
"""

import csv
from pathlib import Path

from small_model import TEST, accuracy, trained

POOLS = ("cls", "gap")
SEEDS = (0, 1, 2, 3, 4)
RESULTS = Path(__file__).with_name("pool_comparison.csv")


def main() -> None:
    """Train what is not trained yet, measure, and write one row a model.

    `swapped` counts the right answers when the trained model is read by the other pool, with the same head.
    """
    rows = []
    for pool in POOLS:
        for seed in SEEDS:
            model, images, labels, share = trained(pool=pool, seed=seed)
            model.pool = POOLS[1 - POOLS.index(pool)]
            rows.append((pool, seed, round(share * TEST), round(accuracy(model, images, labels) * TEST)))
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("pool", "seed", f"right_of_{TEST}", "swapped"), *rows])


if __name__ == "__main__":
    main()
