"""The comparison of our paper model's speed with the libraries': the same work for each."""

import pytest

from autograder import bench_model
from autograder.reference.variants import VARIANTS


@pytest.mark.parametrize("library", bench_model.LIBRARIES)
def test_every_library_builds_the_same_configuration(library):
    model = bench_model.LIBRARIES[library]("Ti/16")
    assert sum(p.numel() for p in model.parameters()) == VARIANTS["Ti/16"].parameters


def test_b16_takes_35_gflop_an_image_and_three_times_that_to_train():
    inference = bench_model.flops(VARIANTS["B/16"], "inference")
    assert inference == pytest.approx(35.2e9, rel=0.01)
    assert bench_model.flops(VARIANTS["B/16"], "training") == 3 * inference


def test_rounds_take_turns(monkeypatch):
    class Contestant:
        def __init__(self, name, rate):
            self.name, self.rate = name, rate

        def inference(self):
            pass

        def images_per_second(self, work, passes):
            turns.append(self.name)
            return self.rate

    turns = []
    contestants = {name: Contestant(name, rate) for name, rate in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    rates = bench_model.measure(contestants, "inference", rounds=3, passes=1)
    assert rates == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [3.0] * 3}
    assert turns[3:] == ["c", "b", "a", "b", "c", "a", "b", "a", "c"]


def test_command_prints_a_ratio_for_every_library(capsys, monkeypatch):
    monkeypatch.setattr(bench_model, "matrix_peak", lambda device: 1e11)
    small = ["--model", "Ti/16", "--batch", "1", "--rounds", "2"]
    assert bench_model.main(small) == 0
    shown = capsys.readouterr().out
    for library in bench_model.LIBRARIES:
        assert shown.count(f"│ {library} ") >= 2, "inference and training, on a GPU compiled too"
    assert shown.count("1.000 (1.00 to 1.00)") >= 2, "ours against ours"
