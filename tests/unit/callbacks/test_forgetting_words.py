"""Word errors on general speech: what is said, what is heard, and the monitor's promises with them in real fits."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jiwer
import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Subset

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, RetentionBudget
from lightning_transfer.callbacks.forgetting_words import Spoken, find_spoken, hear, word_error_rate, word_loss
from lightning_transfer.data.loading import Collate, RecordDataset
from lightning_transfer.errors import CheckpointError
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Batch, Record
from tests.unit.callbacks.forgetting_toys import Crash
from tests.unit.callbacks.words_toys import (
    GENERAL,
    Sentences,
    heard,
    monitor,
    recogniser,
    said,
    train,
)

ROOT = Path(__file__).parents[3]

# ---- what is said ----------------------------------------------------------------------------------------------------


def records(n=6):
    return [Record(str(i), i, label=f"Word {i}!", group=None if i == 1 else f"speaker {i // 2}") for i in range(n)]


def read_of(dataset, size=3):
    return list(DataLoader(dataset, batch_size=size, collate_fn=Collate()))


def load(record):
    return {"input_values": torch.ones(2)}


def test_records_know_text_and_speaker_in_whatever_order_they_are_read():
    whole = RecordDataset(records(), load, (), None)
    dataset = Subset(whole.in_order(None, [6, 5, 4, 3, 2, 1]), [0, 2, 4])
    spoken = find_spoken(dataset, read_of(dataset), [3], None)
    assert spoken == Spoken(("word 5", "word 3", "word 1"), ("speaker 2", "speaker 1", None))
    assert spoken.first(2) == Spoken(("word 5", "word 3"), ("speaker 2", "speaker 1"))


def test_pieces_of_a_long_record_have_no_text():
    index = [(0, 0, 2), (0, 1, 2), (1, 0, 1)]
    dataset = RecordDataset([records()[0], records()[0], records()[2]], load, (), None, index=index)
    spoken = find_spoken(dataset, read_of(dataset), [3], None)
    assert spoken.references == (None, None, "word 2")
    assert spoken.speakers == ("speaker 0", "speaker 0", "speaker 1")
    assert find_spoken(dataset, read_of(dataset, 2)[:1], [2], None) is None


@pytest.mark.parametrize(
    "batch",
    [
        {"x": torch.ones(2, 3), "text": ["One.", "TWO"]},
        {"x": torch.ones(2, 3), "sentence": ("One.", "TWO")},
        (torch.ones(2, 3), ["One.", "TWO"]),
        [torch.ones(2, 3), torch.ones(2), ("One.", "TWO")],
    ],
)
def test_texts_in_a_batch(batch):
    assert find_spoken([], [batch], [2], None) == Spoken(("one", "two"), (None, None))


def test_targets_that_the_module_writes_out():
    class Module:
        schema = SimpleNamespace(preprocessing={"scoring_normaliser": "none"})

        def reference_texts(self, target):
            return ["".join("abc"[number] for number in row) for row in target]

    batch = Batch(torch.ones(2, 3), torch.tensor([[0, 1], [2, 2]]), torch.arange(2))
    assert find_spoken([], [batch], [2], Module()) == Spoken(("ab", "cc"), (None, None), "none")
    assert find_spoken([], [batch], [2], object()) is None
    assert find_spoken([], [(torch.ones(2, 3), ["one"])], [2], object()) is None


# ---- what is heard ---------------------------------------------------------------------------------------------------


class Fixed(lightning.pytorch.LightningModule):
    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def transcribe(self, batch):
        return self.texts[batch]


TRAINER = SimpleNamespace(precision_plugin=lightning.pytorch.plugins.Precision())
SPOKEN = Spoken(("call me back", "yes", None, ""), ("ann", "ann", "bob", "bob"))


def test_words_are_counted_as_jiwer_does_after_the_normaliser():
    texts = [["Call me, bag!", "yes  YES no"], [Transcript(2, "anything", None, 1.0), Transcript(3, "oh", 0.5, 1.0)]]
    counts = hear(Fixed(texts), TRAINER, [0, 1], SPOKEN)
    assert counts.tolist() == [[1, 3], [2, 1], [0, 0], [1, 0]]
    by_jiwer = jiwer.process_words(["call me back", "yes"], ["call me bag", "yes yes no"])
    assert by_jiwer.wer == pytest.approx(3 / 4)
    assert word_error_rate(counts, SPOKEN).value == pytest.approx(4 / 4)  # and one word where nothing was said


@pytest.mark.parametrize(
    ("module", "said_"),
    [
        (Fixed([["one"]]), "returned 1 texts for 4 inputs"),
        (Fixed([["a"] * 5]), "returned 5 texts"),
        (lightning.pytorch.LightningModule(), r"`transcribe\(batch\) -> list\[Transcript\]`.*has no such method"),
    ],
)
def test_what_no_word_can_be_counted_of(module, said_):
    with pytest.raises(MisconfigurationException, match=said_):
        hear(module, TRAINER, [0], SPOKEN)


def test_the_loss_is_the_difference_of_two_rates_on_the_same_draws():
    rng = np.random.default_rng(0)
    words = torch.tensor(rng.integers(1, 9, size=30))
    before, now = (torch.tensor(rng.integers(0, 4, size=30)) for _ in range(2))
    spoken = Spoken(tuple("x" * 30), tuple(f"s{i % 6}" for i in range(30)))
    reference, current = torch.stack([before, words], 1), torch.stack([now, words], 1)
    found = word_loss(reference, current, spoken)
    assert found.value == pytest.approx(((now.sum() - before.sum()) / words.sum()).item())
    assert (found.n, found.num_groups) == (30, 6)
    # By hand: speakers drawn with numpy's own generator, so the ends agree but for chance.
    speakers = np.arange(30) % 6
    drawn = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(speakers == s) for s in rng.integers(0, 6, size=6)])
        drawn.append((now[rows].sum() - before[rows].sum()).item() / words[rows].sum().item())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.03)
    same = word_loss(reference, reference, spoken)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_one_speaker_or_none_known_draws_utterances():
    counts = torch.tensor([[1, 2], [0, 2], [1, 2], [0, 2]])
    for speakers in (("ann",) * 4, (None,) * 4, ("ann", None, None, None)):
        assert word_error_rate(counts, Spoken(("a b",) * 4, speakers)).num_groups == 4
    assert word_error_rate(counts, Spoken(("a b",) * 4, ("ann", "bob", "ann", None))).num_groups == 3


def test_without_a_word_there_is_no_rate():
    found = word_loss(torch.tensor([[0, 0]] * 4), torch.tensor([[1, 0]] * 4), Spoken(("",) * 4, (None,) * 4))
    assert found.value is None
    assert found.reason == "no reference has a word"


# ---- in real fits ----------------------------------------------------------------------------------------------------


class Noisy(Sentences):
    """Draws from every global random state, as augmentations do."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return {**item, "input_values": item["input_values"] + 0.1 * (torch.rand(1) + random.random())}


@pytest.mark.parametrize("lib", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_training_is_bitwise_the_same_with_and_without(tmp_path, lib):
    ends = []
    for callbacks in ([], [monitor(Noisy(n=20, seed=3), every_n_steps=1)]):
        _, module = train(tmp_path, *callbacks, lib=lib)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        ends.append((module.state_dict(), states, [item.training for item in module.modules()]))
    (plain, before, modes), (watched, after, other_modes) = ends
    assert len(callbacks[0].history) == 10
    assert callbacks[0].history[-1].readings["forgetting_wer"].value > 0
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert modes == other_modes


def test_it_reads_exactly_zero_before_training_and_where_nothing_trains(tmp_path):
    module = recogniser()
    module.backbone.requires_grad_(False)
    frozen = monitor(metrics=("wer", "cosine"), backbone="backbone")
    module.lr = 0.0
    freezing = BackboneFreezeUnfreeze("feature_extraction", backbone="backbone", verbose=False)
    train(tmp_path, freezing, frozen, module=module)
    for report in frozen.history:
        assert {reading.value for reading in report.readings.values()} == {0.0}, report
        assert {reading.low for reading in report.readings.values()} == {0.0}
    moving = monitor()
    train(tmp_path, moving)
    assert moving.history[0].readings["forgetting_wer"].value == 0.0
    assert all(report.readings["forgetting_wer"].value > 0 for report in moving.history[1:])


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_it_hears_in_the_trainers_precision(tmp_path, precision):
    callback = monitor()
    module = recogniser(lr=0.0).double() if precision == "64-true" else recogniser(lr=0.0)
    module.backbone.norm.momentum = 0.0  # its statistics would move the words
    train(tmp_path, callback, module=module, precision=precision, epochs=2)
    assert {report.readings["forgetting_wer"].value for report in callback.history} == {0.0}


def test_readings_are_jiwers_and_so_are_the_scores_of_any_check(tmp_path):
    rates = {}

    class ByHand(lightning.pytorch.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            rates[trainer.global_step] = jiwer.wer(said(GENERAL), heard(pl_module, GENERAL))

    before = jiwer.wer(said(GENERAL), heard(recogniser(), GENERAL))
    callback = monitor({"calls": GENERAL})
    trainer, _ = train(tmp_path, callback, ByHand(), epochs=5)
    assert len(set(rates.values())) > 3, "nothing changes, so nothing is shown"
    for report in callback.history[1:]:
        reading = report.readings["forgetting_calls_wer"]
        assert reading.value == pytest.approx(rates[report.step] - before)
        assert reading.low < reading.value < reading.high
        found = callback.source_scores(report.step)["source_calls_wer"]
        assert found["before"].value == pytest.approx(before)
        assert found["before"].low <= before <= found["before"].high
        assert found["after"].value == pytest.approx(rates[report.step])
        assert found["change"] == reading
    assert callback.source_scores(4)["source_calls_wer"]["after"].value is None
    assert float(trainer.callback_metrics["forgetting_calls_wer"]) == pytest.approx(rates[15] - before)


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_an_alarm_stops_where_the_interval_is_past_the_tolerance(tmp_path):
    callback = monitor(tolerance={"wer": 0.05}, confirm=1, on_alarm="stop")
    trainer, _ = train(tmp_path, callback, epochs=8)
    past = [report.readings["forgetting_wer"].low > 0.05 for report in callback.history]
    assert past == [False] * (len(past) - 1) + [True]
    assert trainer.current_epoch < 8


def test_a_resumed_run_counts_from_the_first_reference(tmp_path):
    saver = ModelCheckpoint(tmp_path / "first", save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, monitor(), saver, Crash(2), enable_checkpointing=True, epochs=4)
    last = tmp_path / "first" / "last.ckpt"
    resumed, before = monitor(), jiwer.wer(said(GENERAL), heard(recogniser(), GENERAL))
    _, module = train(tmp_path, resumed, ckpt_path=last, epochs=4)
    assert [report.step for report in resumed.history] == [0, 3, 6, 9, 12]
    now = jiwer.wer(said(GENERAL), heard(module, GENERAL))
    assert resumed.history[-1].readings["forgetting_wer"].value == pytest.approx(now - before)
    assert resumed.source_scores(12)["source_wer"]["before"].value == pytest.approx(before)
    with pytest.raises(CheckpointError, match="was measured without features"):
        train(tmp_path, monitor(metrics=("cosine", "wer"), backbone="backbone"), ckpt_path=last)

    class Others(Sentences):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "text": "yes"}

    with pytest.raises(CheckpointError, match="not those that the reference"):
        train(tmp_path, monitor(Others(n=20, seed=3)), ckpt_path=last)
    watched = ModelCheckpoint(tmp_path / "other", save_last=True)
    train(tmp_path, monitor(metrics=("cosine",), backbone="backbone"), watched, enable_checkpointing=True, epochs=1)
    with pytest.raises(CheckpointError, match="without the metric 'wer'"):
        train(tmp_path, monitor(), ckpt_path=tmp_path / "other" / "last.ckpt")


def test_a_network_without_anything_that_looks_like_a_backbone(tmp_path):
    class Whole(lightning.pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = recogniser()

        def training_step(self, batch, batch_idx):
            return self.inner.loss(batch)

        def transcribe(self, batch):
            return [item.text for item in self.inner.transcribe(batch)]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    callback = monitor(backbone="nowhere")
    train(tmp_path, callback, module=Whole(), epochs=2)
    assert callback.history[-1].readings["forgetting_wer"].value > 0


def test_what_cannot_be_heard_is_said(tmp_path):
    class Silent(lightning.pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(12, 8)

        def training_step(self, batch, batch_idx):
            return self.net(batch["input_values"]).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.raises(MisconfigurationException, match="Silent has no such method"):
        train(tmp_path, monitor(), module=Silent())
    with pytest.raises(MisconfigurationException, match="'wer' needs a probe of source data with transcripts"):
        train(tmp_path, monitor(torch.utils.data.TensorDataset(GENERAL.x)))
    with pytest.raises(MisconfigurationException, match="'wer' needs a probe of source data"):
        train(tmp_path, monitor("target"))


def test_the_general_set_of_the_data_module(tmp_path):
    class Calls(lightning.pytorch.LightningDataModule):
        general = GENERAL

        def train_dataloader(self):
            return DataLoader(Sentences("call", 24, 4), batch_size=8)

        def val_dataloader(self):
            return DataLoader(Sentences("call", 20, 5), batch_size=10)

        def general_dataloader(self):
            return None if self.general is None else DataLoader(self.general, batch_size=4)

    def fit(data, callback):
        module = recogniser()
        options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        fit = lightning.pytorch.Trainer(max_epochs=2, callbacks=[callback], default_root_dir=str(tmp_path), **options)
        fit.fit(module, datamodule=data)
        return module

    callback = monitor("general", tolerance={"wer": 0.9}, on_alarm="stop")
    module = fit(Calls(), callback)
    assert set(callback.history[-1].readings) == {"forgetting_wer"}
    before = jiwer.wer(said(GENERAL), heard(recogniser(), GENERAL))
    now = jiwer.wer(said(GENERAL), heard(module, GENERAL))
    assert callback.history[-1].readings["forgetting_wer"].value == pytest.approx(now - before)
    empty = Calls()
    empty.general = None
    with pytest.raises(MisconfigurationException, match=r"`Calls` names none.*`data.general_file`"):
        fit(empty, monitor("general"))
    with pytest.raises(MisconfigurationException, match="`NoneType` has none"):
        train(tmp_path, monitor("general"))


def test_the_budget_reads_word_errors_by_default(tmp_path):
    callback = RetentionBudget(0.1)
    by_hand = []

    class ByHand(lightning.pytorch.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            by_hand.append(jiwer.wer(said(GENERAL), heard(pl_module, GENERAL)))

    train(tmp_path, ByHand(), monitor(), callback, epochs=4)
    before = jiwer.wer(said(GENERAL), heard(recogniser(), GENERAL))
    assert [row["losses"]["forgetting_wer"] for row in callback.rows] == pytest.approx([w - before for w in by_hand])
    assert callback.before == pytest.approx(0.73)
    assert any(row["within"] for row in callback.rows)


@pytest.mark.slow
def test_two_processes_read_alike(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.unit.callbacks.words_ddp_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["history"] == second["history"]
    assert first["rows"] == second["rows"]
    assert first["history"][0] == 0.0
    assert len(first["rows"]) == 3
    for name, value in first["state"].items():
        assert "norm" in name or torch.equal(value, second["state"][name]), name
