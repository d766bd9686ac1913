"""The trainer: the same run on one process or two, killed or not, and the recipes as the paper lists them."""

import io
import json
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autograder.reference.trainer import checkpoint, images, recipe, schedule, start, stream
from autograder.reference.trainer.__main__ import main
from autograder.reference.trainer.loop import Options, train

TINY = {
    "name": "tiny", "data": "folder", "num_classes": 3, "image_size": 8, "batch_size": 4, "steps": 12,
    "model": {"patch_size": 4, "dim": 8, "depth": 2, "num_heads": 2, "mlp_dim": 12},
    "lr": 0.01, "warmup_steps": 3, "weight_decay": 0.1, "clip_norm": 1.0,
}  # fmt: skip


def tiny(**values) -> recipe.Recipe:
    return recipe.Recipe(**(TINY | values))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """14 images of three classes and of many sizes: batches of 4 meet the end of an epoch in their middle."""
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(14):
        pixels = draw.integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)
        (root / f"class{number % 3}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / f"class{number % 3}" / f"{number:02}.png")
    return root


@pytest.fixture(scope="session")
def shards(folder, tmp_path_factory) -> Path:
    """The images of `folder` as WebDataset shards, five images a shard."""
    root, all_images = tmp_path_factory.mktemp("shards"), images.FolderImages(folder)
    for number, (path, label) in enumerate(all_images.samples):
        with tarfile.open(root / f"part-{number // 5}.tar", "a") as shard:
            for kind, content in (("cls", str(label).encode()), ("png", Path(path).read_bytes())):
                member = tarfile.TarInfo(f"{number:04}.{kind}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    return root


def options(data: Path, out: Path, **values) -> Options:
    return Options(str(data), out, **({"log_every": 1, "checkpoint_every": 4} | values))


def lines(out: Path, key: str = "loss") -> list[float]:
    logged = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [line[key] for line in logged if key in line]


def final(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(checkpoint.find(out)[0])["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def in_processes(count: int, what, *arguments) -> list[int | None]:
    """Run `what` in forked processes that know each other as torchrun's do; return their exit codes."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [context.Process(target=_alone, args=(r, count, port, what, arguments)) for r in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        process.kill()
    return [process.exitcode for process in started]


def _alone(rank: int, world: int, port: int, what, arguments) -> None:
    torch.set_num_threads(1)  # threads of the parent are not there after a fork
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    what(*arguments)


# One process or many


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory) -> Path:
    """One process, whole batches. float64: sums in another order then differ by 1e-15, not by 1e-7."""
    out = tmp_path_factory.mktemp("alone")
    train(tiny(averaging=0.5), options(folder, out, precision="float64", validation=str(folder)))
    return out


@pytest.mark.parametrize(
    ("processes", "how"),
    [(2, {}), (2, {"passes": 2}), (1, {"passes": 4}), (2, {"fsdp": True}), (2, {"fsdp": True, "passes": 2})],
    ids=["DDP", "DDP, two passes", "one process, four passes", "FSDP", "FSDP, two passes"],
)
def test_processes_and_passes_share_the_batch_and_change_nothing(processes, how, alone, folder, tmp_path):
    given = options(folder, tmp_path, precision="float64", validation=str(folder), **how)
    assert in_processes(processes, train, tiny(averaging=0.5), given) == [0] * processes
    assert lines(tmp_path) == pytest.approx(lines(alone), rel=1e-9)
    assert lines(tmp_path, "gradient_norm") == pytest.approx(lines(alone, "gradient_norm"), rel=1e-9)
    assert lines(tmp_path, "accuracy") == lines(alone, "accuracy")
    for name, value in final(alone).items():
        assert torch.allclose(final(tmp_path)[name], value, rtol=0, atol=1e-9), name


def test_the_first_loss_is_that_of_a_head_of_zeros(alone):
    assert lines(alone)[0] == pytest.approx(math.log(3))


def test_digits_are_learnt(tmp_path):
    short = {
        "steps": "100",
        "batch_size": "32",
        "lr": "4e-3",
        "warmup_steps": "10",
        "development_share": "0.2",
    }
    made = recipe.load("digits", short)
    train(made, options(Path("digits"), tmp_path, develop=True, checkpoint_every=1000))
    assert lines(tmp_path, "accuracy")[-1] > 0.4, "chance is 0.1"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_run_is_the_recipe_written_out(optimizer, folder, tmp_path):
    """Adam or momentum, decay, warm-up, clipping and averaging by hand, on the images of the line."""
    made = tiny(optimizer=optimizer, averaging=0.6, clip_norm=1.2, weight_decay=0.2, augment="none")
    train(made, options(folder, tmp_path, precision="float64"))

    found = images.find(str(folder))
    views, line = stream.Views(found, made), stream.Line(len(found), made.seed)
    model = start.build(made, 3, None).double()
    weights = dict(model.named_parameters())
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    first, second = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    losses, lengths = [], []
    for step in range(12):
        rate = 0.01 * ((step + 1) / 3 if step < 3 else (1 + math.cos(math.pi * (step - 3) / 9)) / 2)
        pixels, labels = zip(*(views[line[4 * step + i]] for i in range(4)), strict=True)
        logits = model(torch.stack(pixels).double() / 127.5 - 1)
        loss = -logits.log_softmax(dim=1)[range(4), labels].mean()
        gradients = torch.autograd.grad(loss, [*weights.values()])
        length = sum((g**2).sum() for g in gradients).sqrt().item()
        losses.append(loss.item())
        lengths.append(length)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            g = gradient * min(1, 1.2 / length)
            matrix = name.endswith(".weight") and weight.ndim > 1
            if optimizer == "sgd":
                first[name] = 0.9 * first[name] + g + 0.2 * matrix * weight.detach()
                change = first[name]
            else:
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
                change = mean / (square.sqrt() + 1e-8) + 0.2 * matrix * weight.detach()
            weight.data -= rate * change
            average[name] = 0.6 * average[name] + 0.4 * weight.detach()

    assert max(lengths) > 1.2 > min(lengths), "clipping has to matter for some steps only"
    assert lines(tmp_path) == pytest.approx(losses, rel=1e-6)
    state = checkpoint.read(checkpoint.find(tmp_path)[0])
    for name, weight in weights.items():
        assert torch.allclose(state["model"][name], weight, atol=1e-6), name
        assert torch.allclose(state["average"][name], average[name], atol=1e-6), name


def test_batch_that_processes_cannot_share_equally_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size=4 cannot be cut into equal parts .* 1 processes and 3"):
        train(tiny(), options(folder, tmp_path, passes=3))


# Killed and resumed


def kill_at(step: int):
    """Return an `after_step` that ends its own process like `kill -9`."""
    return lambda now: os.kill(os.getpid(), signal.SIGKILL) if now == step else None


@pytest.mark.parametrize("killed_at", [2, 4, 7, 11])
def test_run_that_was_killed_goes_on_bit_for_bit(killed_at, folder, tmp_path):
    """Dropout, random crops, moving average, loading processes and the middle of an epoch included."""
    made, whole, broken = tiny(dropout=0.2, averaging=0.9), tmp_path / "whole", tmp_path / "broken"
    train(made, options(folder, whole, passes=2))
    assert in_processes(1, train, made, options(folder, broken, passes=2), kill_at(killed_at)) == [
        -signal.SIGKILL
    ]
    before = {path.name for path in checkpoint.find(broken)}
    assert before == {f"step-{step:08}.pt" for step in (4, 8) if step <= killed_at}
    train(made, options(folder, broken, passes=2, resume=True, workers=1))
    assert lines(broken, "step") == list(range(1, 13))
    for key in ("loss", "gradient_norm", "learning_rate"):
        assert lines(broken, key) == lines(whole, key), key
    ours, theirs = (checkpoint.read(checkpoint.find(out)[0]) for out in (whole, broken))
    assert same(ours["model"], theirs["model"])
    assert same(ours["average"], theirs["average"])


def test_process_killed_while_it_writes_leaves_the_checkpoint_before(folder, tmp_path):
    def train_and_die_writing() -> None:
        whole = torch.save

        def half(state, file) -> None:
            if state["step"] == 8:
                file.write(b"half a file")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            whole(state, file)

        torch.save = half
        train(tiny(), options(folder, tmp_path))

    assert in_processes(1, train_and_die_writing) == [-signal.SIGKILL]
    assert [path.name for path in checkpoint.find(tmp_path)] == ["step-00000004.pt"]
    train(tiny(), options(folder, tmp_path, resume=True))
    train(tiny(), options(folder, tmp_path / "whole"))
    assert lines(tmp_path) == lines(tmp_path / "whole")


def test_two_sharded_processes_leave_a_checkpoint_that_one_goes_on_from(alone, folder, tmp_path):
    made, given = tiny(averaging=0.5), options(folder, tmp_path, precision="float64", fsdp=True)
    in_processes(2, train, made, given, kill_at(6))
    train(made, options(folder, tmp_path, precision="float64", resume=True))
    assert lines(tmp_path) == pytest.approx(lines(alone), rel=1e-9)


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.test_trainer import options, tiny, train

def after_step(step):
    if step == 6 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

given = options(Path(sys.argv[2]), Path(sys.argv[3]), precision="float64", resume=True)
train(tiny(averaging=0.5), given, after_step)
"""


def test_torchrun_restarts_the_run_when_a_rank_is_killed(alone, folder, tmp_path):
    script, root = tmp_path / "script.py", Path(__file__).parents[1]
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "--max-restarts", "1", "--monitor-interval", "0.1", script, root, folder, tmp_path]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=150)
    finally:
        process.terminate()  # not kill: it has to end its ranks
        process.wait()
    assert process.returncode == 0, said
    assert "exitcode: -9" in said, "no rank was killed"
    assert lines(tmp_path) == pytest.approx(lines(alone), rel=1e-9)


def test_folder_in_use_is_refused_without_resume(alone, folder):
    with pytest.raises(ValueError, match=r"holds a run already; add --resume"):
        train(tiny(averaging=0.5), options(folder, alone, precision="float64"))


@pytest.mark.parametrize(("key", "value"), [("lr", 0.02), ("seed", 1), ("steps", 13), ("averaging", 0.0)])
def test_resume_with_another_recipe_is_refused(key, value, alone, folder):
    changed = tiny(**({"averaging": 0.5} | {key: value}))
    with pytest.raises(ValueError, match=rf"belongs to a run with {key}=.*, now {value}"):
        train(changed, options(folder, alone, precision="float64", resume=True))


def test_resume_with_other_data_is_refused(alone, folder):
    made = tiny(averaging=0.5, development_share=0.3)
    given = options(folder, alone, resume=True, develop=True)
    with pytest.raises(ValueError, match=r"development_share=0.0, now 0.3; images=14, now 10"):
        train(made, given)


def test_damaged_checkpoint_is_refused_by_name(tmp_path):
    path = checkpoint.write(tmp_path, 4, {"model": {"weight": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"step-00000004\.pt cannot be read; remove it"):
        checkpoint.read(path)


def test_checkpoint_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"model": Attack()}, tmp_path / "step-00000004.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.read(tmp_path / "step-00000004.pt")
    assert not (tmp_path / "attacked").exists()


# Data


def test_shards_and_folders_give_the_same_batches(folder, shards):
    made = tiny(augment="inception")
    seen = []
    for data in (folder, shards):
        found = images.find(str(data))
        passes = stream.Passes(stream.Line(len(found), seed=3), 4, range(2, 9))
        seen.append(list(stream.batches(stream.Views(found, made), passes, workers=0, pin=False)))
    for (pixels, labels), (other_pixels, other_labels) in zip(*seen, strict=True):
        assert torch.equal(pixels, other_pixels)
        assert torch.equal(labels, other_labels)


def test_the_index_beside_shards_is_used_until_a_shard_changes(shards, monkeypatch):
    images.ShardImages(shards)
    monkeypatch.setattr(images, "shard_entries", lambda path: pytest.fail("the index was made again"))
    assert len(images.ShardImages(shards)) == 14
    os.utime(shards / "part-0.tar", ns=(1, 1))
    with pytest.raises(pytest.fail.Exception, match="made again"):
        images.ShardImages(shards)


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own():
    line = stream.Line(14, seed=0)
    epochs = [[line[position] for position in range(14 * e, 14 * e + 14)] for e in range(3)]
    assert [{epoch for epoch, _ in places} for places in epochs] == [{0}, {1}, {2}]
    orders = [[image for _, image in places] for places in epochs]
    assert all(sorted(order) == list(range(14)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_view_of_an_image_depends_on_epoch_and_seed_alone(folder):
    found = images.find(str(folder))
    views = stream.Views(found, tiny())
    first = views[0, 5][0]
    torch.manual_seed(123)
    assert torch.equal(views[0, 5][0], first)
    assert not torch.equal(views[1, 5][0], first)
    assert not torch.equal(stream.Views(found, tiny(seed=1))[0, 5][0], first)
    held_out = [stream.Views(found, tiny(seed=seed), training=False) for seed in (0, 1)]
    assert torch.equal(held_out[0][0, 5][0], held_out[1][3, 5][0])


def test_image_without_label_in_a_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        shard.addfile(tarfile.TarInfo("0001.jpg"))
    with pytest.raises(ValueError, match=r"image '0001' has no \.cls file"):
        images.find(str(tmp_path))


@pytest.mark.parametrize("content", [None, ()], ids=["missing", "empty"])
def test_folder_without_images_is_refused(content, tmp_path):
    data = tmp_path / "data"
    if content is not None:
        data.mkdir()
    with pytest.raises(ValueError, match=r"is not a folder|holds neither"):
        images.find(str(data))


def test_development_share_is_kept_from_training(folder):
    found = images.find(str(folder))
    kept, held_out = stream.develop(found, tiny(development_share=0.3))
    assert len(held_out) == 4
    assert sorted([*kept.numbers, *held_out.numbers]) == list(range(14))


# Recipes: Table 3 (pre-training) and Table 4 (fine-tuning) of Dosovitskiy et al. 2020

TABLE_3 = [
    # recipe, epochs, learning rate, decay, weight decay, dropout, clip
    ("jft-b16", 7, 8e-4, "linear", 0.1, 0.0, 0),
    ("jft-b32", 7, 8e-4, "linear", 0.1, 0.0, 0),
    ("jft-l32", 7, 6e-4, "linear", 0.1, 0.0, 0),
    ("jft-l16-7epochs", 7, 4e-4, "linear", 0.1, 0.0, 0),
    ("jft-l16-14epochs", 14, 4e-4, "linear", 0.1, 0.0, 0),
    ("jft-h14", 14, 3e-4, "linear", 0.1, 0.0, 0),
    ("imagenet21k-b16", 90, 1e-3, "linear", 0.03, 0.1, 0),
    ("imagenet21k-b32", 90, 1e-3, "linear", 0.03, 0.1, 0),
    ("imagenet21k-l16-30epochs", 30, 1e-3, "linear", 0.03, 0.1, 0),
    ("imagenet21k-l16-90epochs", 90, 1e-3, "linear", 0.03, 0.1, 0),
    ("imagenet21k-l32-30epochs", 30, 1e-3, "linear", 0.03, 0.1, 0),
    ("imagenet21k-l32-90epochs", 90, 1e-3, "linear", 0.03, 0.1, 0),
    ("imagenet-b16", 300, 3e-3, "cosine", 0.3, 0.1, 1),
    ("imagenet-b32", 300, 3e-3, "cosine", 0.3, 0.1, 1),
    ("imagenet-l16", 300, 3e-3, "cosine", 0.3, 0.1, 1),
    ("imagenet-l32", 300, 3e-3, "cosine", 0.3, 0.1, 1),
    ("imagenet-h14", 300, 3e-3, "cosine", 0.3, 0.1, 1),
]
SWEEP = (0.001, 0.003, 0.01, 0.03)
TABLE_4 = [
    # data, steps, learning rates, share of the training images to choose on
    ("imagenet", 20_000, (0.003, 0.01, 0.03, 0.06), 0.01),
    ("cifar100", 10_000, SWEEP, 0.02),
    ("cifar10", 10_000, SWEEP, 0.02),
    ("pets", 500, SWEEP, 0.1),
    ("flowers", 500, SWEEP, 0.1),
    ("vtab", 2_500, (0.01,), 0.0),
]
MODELS = {"b16": "B/16", "b32": "B/32", "l16": "L/16", "l32": "L/32", "h14": "H/14"}


@pytest.mark.parametrize(("name", "epochs", "lr", "decay", "weight_decay", "dropout", "clip"), TABLE_3)
def test_pre_training_is_table_3(name, epochs, lr, decay, weight_decay, dropout, clip):
    made = recipe.load(name)
    assert (made.epochs, made.lr, made.decay) == (epochs, lr, decay)
    assert (made.weight_decay, made.dropout, made.clip_norm) == (weight_decay, dropout, clip)
    assert (made.optimizer, made.batch_size, made.warmup_steps, made.image_size) == (
        "adam",
        4096,
        10_000,
        224,
    )
    assert made.model == MODELS[name.split("-")[1]]
    assert made.representation
    assert not made.pretrained


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("data", "steps", "rates", "share"), TABLE_4)
def test_fine_tuning_is_table_4(data, steps, rates, share, model):
    made = recipe.load(f"finetune-{data}-{model}")
    assert (made.steps, made.rates, made.development_share) == (steps, rates, share)
    assert (made.optimizer, made.momentum, made.batch_size, made.decay) == ("sgd", 0.9, 512, "cosine")
    assert (made.weight_decay, made.clip_norm, made.warmup_steps) == (0, 1, 0)
    assert made.image_size == (378 if model == "h14" else 384)  # 27 patches of 14, which is what 384 px give
    assert made.model == MODELS[model]
    assert made.pretrained


@pytest.mark.parametrize(("name", "size"), [("imagenet-l16-512px", 512), ("imagenet-h14-518px", 518)])
def test_table_2_fine_tunes_on_larger_images_and_averages_the_weights(name, size):
    made = recipe.load(f"finetune-{name}")
    assert (made.image_size, made.averaging) == (size, 0.9999)


def test_the_tables_hold_every_recipe_of_the_paper():
    larger = {"finetune-imagenet-l16-512px", "finetune-imagenet-h14-518px"}
    paper = {row[0] for row in TABLE_3} | {
        f"finetune-{row[0]}-{model}" for row in TABLE_4 for model in MODELS
    }
    assert set(recipe.load_all()) - paper - larger == {"digits", "cifar10"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.1}, "learning_rate=0.1 cannot be used; no such key; the keys are name, model"),
        ({"lr": 0}, "lr=0 cannot be used; choose a learning rate above 0"),
        ({"lr": math.nan}, "lr=nan cannot be used"),
        ({"lr": "high"}, "lr='high' cannot be used; write a value of type"),
        ({"batch_size": 0}, "batch_size=0 cannot be used; choose a number from 1"),
        ({"batch_size": 4.5}, "batch_size=4.5 cannot be used; write a value of type int"),
        ({"steps": True}, "steps=True cannot be used; write a value of type int"),
        ({"dropout": 1.0}, "dropout=1.0 cannot be used; choose a number from 0, below 1"),
        ({"decay": "exponential"}, "decay='exponential' cannot be used; choose one of linear, cosine"),
        ({"optimizer": "lion"}, "optimizer='lion' cannot be used; choose one of adam, sgd"),
        ({"model": "B/15"}, "model='B/15' cannot be used; choose one of Ti/16"),
        ({"model": {"dim": 8}}, "cannot be used; give patch_size, dim, depth, num_heads, mlp_dim"),
        ({"image_size": 10}, "image_size=10 cannot be used; choose a multiple of the patch size, 4"),
        ({"channels": 2}, "channels=2 cannot be used; choose one of 1, 3"),
        ({"epochs": 3}, "epochs=3 cannot be used; give either epochs or steps"),
        ({"steps": 0}, "epochs=0 cannot be used; give either epochs or steps"),
    ],
    ids=str,
)  # fmt: skip
def test_value_that_cannot_be_is_refused_with_its_key_and_a_fix(changes, said):
    with pytest.raises(ValueError, match=r"recipe 'tiny': ") as error:
        recipe.make(TINY | changes)
    assert said in str(error.value)


def test_recipe_that_lacks_a_key_is_refused():
    with pytest.raises(ValueError, match="'tiny' lacks image_size; add the line"):
        recipe.make({key: value for key, value in TINY.items() if key != "image_size"})


def test_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"recipe='imagenet-b17' is unknown; choose one of .*imagenet-b16"):
        recipe.load("imagenet-b17")


def test_a_run_has_to_choose_one_of_several_learning_rates():
    with pytest.raises(ValueError, match=r"--set lr=<one of 0\.001, 0\.003, 0\.01, 0\.03>"):
        recipe.load("finetune-cifar10-b16").single_rate()
    assert recipe.load("finetune-cifar10-b16", {"lr": "0.03"}).single_rate() == 0.03


# Schedule and optimiser


@pytest.mark.parametrize(
    ("decay", "rates"),
    [
        ("linear", [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_rate_rises_in_a_line_and_falls_to_zero(decay, rates):
    made = tiny(lr=1.0, warmup_steps=4, steps=8, decay=decay)
    assert [schedule.learning_rate(made, step, 8) for step in range(8)] == pytest.approx(rates, rel=1e-5)
    assert schedule.learning_rate(made, 8, 8) == pytest.approx(0)


def test_weight_decay_is_for_matrices_alone():
    model = start.build(tiny(representation=True), classes=3, file=None)
    decayed, others = schedule.make_optimizer(model, tiny(), fused=False).param_groups
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert {names[id(p)] for p in decayed["params"]} == {
        "patch_embed.proj.weight", "pre_logits.fc.weight", "head.weight",
        *(f"blocks.{n}.{part}.weight" for n in (0, 1) for part in parts),
    }  # fmt: skip
    assert len(decayed["params"]) + len(others["params"]) == len(names)


# Fine-tuning, and the command line


def test_fine_tuning_starts_from_the_weights_with_a_zero_head_and_more_positions(folder, tmp_path):
    train(tiny(representation=True), options(folder, tmp_path))
    old = final(tmp_path)
    made = tiny(pretrained=True, image_size=16, num_classes=7)
    model = start.build(made, 7, checkpoint.find(tmp_path)[0])
    assert model.head.weight.shape == (7, 8)
    assert not model.head.weight.any()
    assert "pre_logits.fc.weight" in old
    assert not list(model.pre_logits.parameters())
    assert model.pos_embed.shape == (1, 1 + 16, 8)
    assert torch.equal(model.blocks[1].mlp.fc1.weight, old["blocks.1.mlp.fc1.weight"])


def test_fine_tuning_takes_the_average_of_a_run_that_kept_one(alone):
    state = checkpoint.read(checkpoint.find(alone)[0])
    model = start.build(tiny(pretrained=True), 3, checkpoint.find(alone)[0])
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(model.state_dict()[name].double(), state["average"][name].float().double())
    assert not torch.equal(state["average"][name], state["model"][name])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jft-b16"], "JFT-300M, which nobody outside Google has"),
        (["imagenet-b16"], "name a folder with --data"),
        (["imagenet-b16", "--data", "{folder}"], "has 1 steps; choose fewer, or train longer"),
        (["finetune-pets-b16", "--data", "{folder}"], "choose one for the run: --set lr="),
        (["finetune-pets-b16", "--data", "{folder}", "--set", "lr=0.01"], "needs pre-trained weights"),
        (["cifar10", "--data", "{folder}", "--set", "num_classes=2"], "but the data have 3"),
        (["digits", "--set", "warm_up=3"], "warm_up=3 cannot be used; no such key"),
        (["digits", "--weights", "w.pt"], "recipe 'digits' starts without; leave them out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_says_what_is_missing(arguments, said, folder, tmp_path, capsys):
    filled = [argument.format(folder=folder) for argument in arguments]
    assert main([*filled, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_command_trains_and_reports(tmp_path, capsys):
    short = ["--set", "steps=6", "--set", "warmup_steps=2", "--set", "development_share=0.1"]
    assert main(["digits", *short, "--out", str(tmp_path), "--develop", "--log-every", "3"]) == 0
    shown = capsys.readouterr().out
    assert " 50 %  step 3 of 6  loss 2." in shown
    assert "images per second" in shown
    assert "accuracy 0." in shown
    assert lines(tmp_path, "images") == [180]


@pytest.mark.gpu
@pytest.mark.parametrize("how", [{}, {"compile": True}], ids=["eager", "compiled"])
def test_half_precision_on_a_gpu_follows_the_float32_run(how, folder, tmp_path):
    train(tiny(), options(folder, tmp_path / "float32", precision="float32"))
    train(tiny(), options(folder, tmp_path / "bf16", precision="bf16", **how))
    assert lines(tmp_path / "bf16") == pytest.approx(lines(tmp_path / "float32"), abs=0.03)
