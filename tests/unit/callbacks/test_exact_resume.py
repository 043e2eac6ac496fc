from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, ExactResume
from lightning_transfer.callbacks.exact_resume import random_states, restore_random_states
from tests.unit.callbacks.callback_toys import Toy, trainer
from tests.unit.callbacks.resume_toys import BATCHES, EPOCHS, RandomToy, callbacks, differences, plateau, run

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")

# Name: arguments of the module, options of the trainer, checkpoints on the way.
FITS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "one cycle by step": ({}, {}, EPOCHS * (BATCHES - 1 + 2)),
    "weighted sampler, validation within the epoch": (
        {"weighted": True},
        {"val_check_interval": 2},
        EPOCHS * (2 + 2 + 1),
    ),
    # A validation after each batch: every second checkpoint falls within an accumulation.
    "accumulation": ({}, {"accumulate_grad_batches": 2, "val_check_interval": 1}, EPOCHS * (BATCHES + 1)),
    "plateau": ({"configure": plateau}, {}, EPOCHS * (BATCHES - 1 + 2)),
    "plateau every second epoch": (
        {"configure": partial(plateau, frequency=2)},
        {"accumulate_grad_batches": 2},
        EPOCHS * (BATCHES - 1 + 2),
    ),
    "plateau, validation within the epoch": ({"configure": plateau}, {"val_check_interval": 2}, EPOCHS * (2 + 2 + 1)),
    "counted in steps": ({"configure": plateau}, {"max_steps": 18}, 3 * (BATCHES - 1 + 2) + 2 + 2),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_resumed_from_any_checkpoint_ends_as_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    arguments, options, count = FITS[name]
    whole, saved = run(tmp_path, RandomToy(**arguments), save=True, **options)
    assert len(saved) == count
    # Counted in steps, the last two leave nothing to do; else the last one.
    for path in saved[: -2 if "max_steps" in options else -1]:
        again, _ = run(tmp_path, RandomToy(**arguments, seed=5), checkpoint=path, **options)
        assert differences(whole, again) == [], path.name


def test_without_the_callback_a_resumed_fit_draws_other_numbers(tmp_path: Path) -> None:
    """The comparison above can fail: dropout alone tells the two ends apart."""
    whole, saved = run(tmp_path, RandomToy(), save=True)
    checkpoint = torch.load(saved[8], weights_only=True)
    del checkpoint["callbacks"]["ExactResume"]
    torch.save(checkpoint, tmp_path / "bare.ckpt")
    again, _ = run(tmp_path, RandomToy(seed=5), checkpoint=tmp_path / "bare.ckpt")
    assert differences(whole, again) == ["state_dict", "optimizer_states", "random"]


def test_workers_load_the_rest_of_the_epoch(tmp_path: Path) -> None:
    whole, saved = run(tmp_path, RandomToy(), save=True)
    wanted = {"1-2-batch.ckpt", "2-5-epoch.ckpt"}
    for path in [item for item in saved if item.name in wanted]:
        again, _ = run(tmp_path, RandomToy(seed=5, workers=2), checkpoint=path)
        assert differences(whole, again) == [], path.name


class DrawsAtStart(Callback):
    """Draws random numbers when training starts, as a callback that reads some data does."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        torch.rand(3), random.random(), np.random.rand()


def test_what_others_draw_when_training_starts_does_not_count(tmp_path: Path) -> None:
    def make() -> list[Any]:
        return callbacks(DrawsAtStart())

    whole, saved = run(tmp_path, RandomToy(), save=True, make=make)
    again, _ = run(tmp_path, RandomToy(seed=5), checkpoint=saved[7], make=make)
    assert differences(whole, again) == []


def test_logged_metrics_are_known_before_the_next_validation(tmp_path: Path) -> None:
    class See(Callback):
        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def make(see: See) -> Any:
        return lambda: [see, ExactResume()]

    first, second = See(), See()
    _, saved = run(tmp_path, RandomToy(), save=True, make=make(first))
    path = next(item for item in saved if item.name == "2-3-batch.ckpt")
    run(tmp_path, RandomToy(seed=5), checkpoint=path, make=make(second))
    assert first.seen[-len(second.seen)]["val_loss"] == second.seen[0]["val_loss"]


def test_a_second_fit_does_not_take_the_states_of_the_first(tmp_path: Path) -> None:
    whole, saved = run(tmp_path, RandomToy(), save=True, make=lambda: [ExactResume()])
    callback = ExactResume()
    # As after `trainer.validate(ckpt_path=...)`: Lightning restores callbacks there too.
    callback.load_state_dict(torch.load(saved[7], weights_only=True)["callbacks"]["ExactResume"])
    again, _ = run(tmp_path, RandomToy(), make=lambda: [callback])
    assert differences(whole, again) == []


def test_another_number_of_processes_is_said(tmp_path: Path) -> None:
    _, saved = run(tmp_path, RandomToy(), save=True)
    checkpoint = torch.load(saved[3], weights_only=True)
    checkpoint["callbacks"]["ExactResume"]["random"] *= 2
    torch.save(checkpoint, tmp_path / "two.ckpt")
    with pytest.warns(UserWarning, match="random states of 2 processes, and this run has 1"):
        run(tmp_path, RandomToy(), checkpoint=tmp_path / "two.ckpt")


def test_a_checkpoint_of_weights_alone_holds_no_states(tmp_path: Path) -> None:
    fit = trainer([ExactResume()], 1)
    fit.fit(Toy())
    fit.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    assert "callbacks" not in torch.load(tmp_path / "weights.ckpt", weights_only=True)


def test_a_checkpoint_without_states_resumes_as_ever(tmp_path: Path) -> None:
    fit = trainer([BackboneFreezeUnfreeze("full", verbose=False)], 1)
    fit.fit(Toy())
    fit.save_checkpoint(tmp_path / "old.ckpt")
    again = trainer([BackboneFreezeUnfreeze("full", verbose=False), ExactResume()], 2)
    again.fit(Toy(), ckpt_path=tmp_path / "old.ckpt")
    assert again.global_step == 8


def test_random_states_are_restored_exactly() -> None:
    def draw() -> tuple[Any, ...]:
        normal = np.random.normal(size=3).tolist()  # an odd number: NumPy keeps the second of a pair
        return random.random(), random.gauss(0, 1), normal, torch.rand(3).tolist()

    draw()
    states = random_states(CPU)
    first = draw()
    draw()
    restore_random_states(states, CPU)
    assert draw() == first


@pytest.mark.gpu
def test_the_state_of_the_device_is_restored() -> None:
    device = torch.device("cuda", 0)
    states = random_states(device)
    first = torch.rand(3, device=device)
    restore_random_states(states, device)
    assert torch.equal(torch.rand(3, device=device), first)


def test_each_process_goes_on_from_its_own_state(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.unit.callbacks.resume_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        whole, *resumed = (torch.load(path, weights_only=True) for path in sorted(tmp_path.glob(f"*-rank{rank}.pt")))
        assert len(resumed) == 2
        for again in resumed:
            assert all(torch.equal(value, again["state"][name]) for name, value in whole["state"].items())
            assert whole["drawn"] == again["drawn"]
    # The processes do draw different numbers.
    assert torch.load(tmp_path / "0-rank0.pt")["drawn"] != torch.load(tmp_path / "0-rank1.pt")["drawn"]


def test_gradients_that_several_processes_accumulate_are_not_kept_silently(tmp_path: Path) -> None:
    fit = trainer([ExactResume()], 1, accumulate_grad_batches=2)

    class SaveAmongTwo(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                trainer.strategy.world_size = 2
                trainer.save_checkpoint(tmp_path / "between.ckpt")
                trainer.strategy.world_size = 1

    fit.callbacks.append(SaveAmongTwo())
    with pytest.warns(UserWarning, match="between two of the 2 batches"):
        fit.fit(Toy())
    assert torch.load(tmp_path / "between.ckpt", weights_only=True)["callbacks"]["ExactResume"]["gradients"] == {}
