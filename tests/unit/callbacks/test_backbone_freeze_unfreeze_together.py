"""BackboneFreezeUnfreeze beside Lightning's finders and weight averaging, and copies of it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint, WeightAveraging
from torch.optim.swa_utils import get_ema_avg_fn

from lightning_transfer.callbacks import BackboneFreezeUnfreeze
from tests.unit.callbacks.callback_toys import Toy, adamw, copy_state, difference, loader, trainer
from tests.unit.callbacks.test_backbone_freeze_unfreeze import Watch

BY_EPOCH = {"schedule": {0: 0, 1: 1, 2: "all"}}
BY_STEP = {"schedule": {0: 0, 4: 1, 8: "all"}, "unit": "step"}


def freezing(arguments: dict[str, Any] = BY_EPOCH) -> BackboneFreezeUnfreeze:
    return BackboneFreezeUnfreeze(**arguments, verbose=False)


class Tuned(Toy):  # type: ignore[misc, valid-type]
    """With the two attributes that the finders set."""

    def __init__(self, batch_size: int = 2, seed: int = 0) -> None:
        super().__init__(lambda toy: torch.optim.AdamW(toy.parameters(), lr=toy.lr), seed=seed)
        self.lr = 0.01
        self.batch_size = batch_size

    def train_dataloader(self) -> Any:
        return loader(self.batch_size)


@pytest.mark.parametrize("arguments", [BY_EPOCH, BY_STEP])
@pytest.mark.parametrize("kind", ["rate", "batch"])
def test_a_search_before_the_fit_leaves_no_trace(
    kind: str, arguments: dict[str, Any], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """The oracle is the run without a search: the same weights and BatchNorm statistics, bit for bit."""
    finder: Any = BatchSizeFinder(max_trials=2, steps_per_trial=2)
    if kind == "rate":
        finder = LearningRateFinder(num_training_steps=6, update_attr=False, attr_name="lr")
    ours, watch = freezing(arguments), Watch()
    module = Tuned(8 if kind == "rate" else 2)
    trainer([ours, finder, watch], default_root_dir=tmp_path).fit(module)
    plain, seen = Tuned(module.batch_size), Watch()
    trainer([freezing(arguments), seen]).fit(plain)
    assert watch.open == seen.open
    assert difference(module, plain) == 0.0
    assert all(value.requires_grad for value in module.parameters())
    # The search ends with a checkpoint that Lightning restores; that is no resumed run.
    assert not [item for item in recwarn if "The checkpoint was trained with" in str(item.message)]
    assert all(child.training and "train" not in vars(child) for child in module.modules())


def test_finders_see_every_group_open_since_lightning_runs_them_first(tmp_path: Path) -> None:
    class Looking(Tuned):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.seen.append(sum(value.requires_grad for value in self.parameters()))
            return super().training_step(batch, batch_idx)

    module = Looking(8)
    finder = LearningRateFinder(num_training_steps=6, update_attr=False, attr_name="lr")
    trainer([freezing(), finder], 1, default_root_dir=tmp_path).fit(module)
    assert module.seen == [14] * (len(module.seen) - 4) + [2] * 4
    assert len(module.seen) > 4


class Own(Callback):
    """An average of its own: float64, over the weights as they are after each step."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, torch.Tensor] | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        now = {name: value.detach().double().clone() for name, value in pl_module.named_parameters()}
        if self.average is None:
            self.average = now
        else:
            kept, decay = self.average, self.decay
            self.average = {name: decay * kept[name] + (1 - decay) * now[name] for name in now}


@pytest.mark.parametrize("arguments", [BY_EPOCH, BY_STEP])
def test_an_average_is_that_of_the_weights_of_all_stages(arguments: dict[str, Any]) -> None:
    def run(*more: Any) -> Any:
        module = Toy(adamw, norm="layer")
        before = copy_state(module)
        trainer([freezing(arguments), *more], 2).fit(module)
        return module, before

    own = Own(0.9)
    run(own)
    module, before = run(WeightAveraging(avg_fn=get_ema_avg_fn(0.9)))
    assert own.average is not None
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.detach().double(), own.average[name], rtol=0, atol=1e-6)
        # Two epochs open the head and the top block: the average of what is frozen is what it was.
        frozen = name.startswith(("backbone.blocks.0", "backbone.blocks.1"))
        assert (float((value.detach() - before[name]).abs().max()) < 1e-6) == frozen
        assert value.requires_grad


def test_an_averaged_run_resumes_where_the_uninterrupted_one_was(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [freezing(), WeightAveraging(avg_fn=get_ema_avg_fn(0.9))]

    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole = Toy(adamw)
    trainer([*callbacks(), saver], enable_checkpointing=True).fit(whole)
    for epoch in range(3):
        again = Toy(adamw, seed=epoch + 1)
        trainer(callbacks()).fit(again, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert difference(whole, again) == 0.0


def pickled(callback: BackboneFreezeUnfreeze) -> BackboneFreezeUnfreeze:
    return pickle.loads(pickle.dumps(callback))  # noqa: S301 - what was pickled here a moment ago


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
@pytest.mark.parametrize(
    "arguments", [BY_EPOCH, BY_STEP, {"schedule": "gradual", "monitor": "val_loss", "patience": 1}]
)
def test_a_copy_does_what_the_original_does(arguments: dict[str, Any], duplicate: Any, used: bool) -> None:
    original = freezing(arguments)
    if used:
        trainer([original], 2).fit(Toy(adamw))
    modules, watches = [Toy(adamw), Toy(adamw)], [Watch(), Watch()]
    for callback, module, watch in zip([duplicate(original), original], modules, watches, strict=True):
        trainer([callback, watch]).fit(module)
    assert watches[0].open == watches[1].open
    assert difference(*modules) == 0.0
