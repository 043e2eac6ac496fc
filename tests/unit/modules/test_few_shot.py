"""Contrast, then fit a head. Oracles: scikit-learn on transformers' own embeddings, the uninterrupted run."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader

from lightning_transfer import BackboneFreezeUnfreeze
from lightning_transfer.backbones import LoraOptions
from lightning_transfer.callbacks import ExactResume
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation.scratch import fit_scratch
from lightning_transfer.modules import FewShotModule, TransferModule
from lightning_transfer.modules.losses import supervised_contrastive_loss
from lightning_transfer.types import Batch, Schema
from tests.unit.modules.text_toys import QUEUES, ToyTexts, make_encoder, make_tickets, schema_of

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / "bert")


def module_of(folder: Path, lr: float = 3e-3, **options: Any) -> FewShotModule:
    return FewShotModule(str(folder), optimizer=lambda params: torch.optim.AdamW(params, lr=lr), **options)


def fit(module: FewShotModule, data: Any, epochs: int, *callbacks: Callback, **options: Any) -> Trainer:
    torch.manual_seed(0)
    saves = any(isinstance(item, ModelCheckpoint) for item in callbacks)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[*callbacks, ExactResume()], enable_checkpointing=saves, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, **options) if isinstance(data, ToyTexts) else trainer.fit(module, data)
    return trainer


def embed(module: FewShotModule, texts: list[str]) -> np.ndarray:
    """Unit-length means by transformers' own forward and tokenizer, one text at a time."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{module.card.name}/tokenizer.json")
    rows = []
    for text in texts:
        with torch.no_grad():
            hidden = module.backbone.model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).double().numpy())
    return np.stack(rows)


class Heads(Callback):
    """Keeps, at the end of each validation, what scikit-learn makes of the encoder as it is then, and the log."""

    def __init__(self) -> None:
        self.wanted: list[float] = []
        self.logged: list[float] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        rows = {split: make_tickets(count, number) for number, (split, count) in enumerate((("train", 4), ("val", 6)))}
        (train, labels), (val, truth) = (zip(*rows[split], strict=True) for split in ("train", "val"))
        modes = {part: part.training for part in pl_module.modules()}
        found = LogisticRegression(C=30.0, max_iter=1000).fit(embed(pl_module, list(train)), labels)
        self.wanted.append(float((found.predict(embed(pl_module, list(val))) == np.array(truth)).mean()))
        self.logged.append(float(trainer.callback_metrics["val_accuracy"]))
        for part, mode in modes.items():
            part.training = mode


def test_validation_shows_a_head_fitted_to_the_encoder_of_that_moment(folder):
    module, heads = module_of(folder), Heads()
    fit(module, ToyTexts(), 4, heads)
    assert heads.logged == pytest.approx(heads.wanted)
    assert len(set(heads.wanted)) > 1 or heads.wanted[0] == 1.0


def test_the_head_is_scikit_learns_and_no_optimizer_has_it(folder):
    module = module_of(folder, inverse_penalty=3.0)
    trainer = fit(module, ToyTexts(), 2)
    held = {id(value) for group in trainer.optimizers[0].param_groups for value in group["params"]}
    assert not held & {id(value) for value in module.head.parameters()}
    train, labels = zip(*make_tickets(4, 0), strict=True)
    oracle = LogisticRegression(C=3.0, max_iter=3000, tol=1e-8).fit(
        embed(module, list(train)), [QUEUES.index(label) for label in labels]
    )
    texts = [text for text, _ in make_tickets(6, 3)]
    data = ToyTexts()
    data.preprocessing = data.make_preprocessing(module.card)
    with torch.no_grad():
        logits = module.eval()(data.preprocessing.collate([data.preprocessing(text) for text in texts])).double()
    wanted = torch.from_numpy(oracle.decision_function(embed(module, texts)))
    # Only differences count: a constant may be added to all logits of a text.
    torch.testing.assert_close(logits - logits.mean(1, True), wanted - wanted.mean(1, True), rtol=0, atol=0.01)


def test_contrast_brings_classes_apart(folder):
    module = module_of(folder)
    texts, labels = zip(*make_tickets(8, 5), strict=True)
    same = np.array(labels)[:, None] == np.array(labels)[None]

    def gap() -> float:
        found = embed(module, list(texts))
        cosines = found @ found.T
        return float(cosines[same & ~np.eye(len(texts), dtype=bool)].mean() - cosines[~same].mean())

    before = gap()
    fit(module, ToyTexts(8), 12)
    assert gap() > before + 0.2


def test_the_loss_is_cross_entropy_to_the_epochs_head_plus_weighted_contrast(folder):
    """Of the first step: the head is the probe's, and the encoder still the pretrained one."""
    seen: dict[str, Any] = {}

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
            seen.setdefault("batch", batch)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.setdefault("loss", float(outputs["loss"]))

    for contrast in (0.0, 0.5):
        seen.clear()
        module = module_of(folder, contrast=contrast, temperature=0.2)
        for part in module.backbone.modules():  # the step without dropout
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            if hasattr(part, "dropout_prob"):
                part.dropout_prob = 0.0
        train, labels = zip(*make_tickets(4, 0), strict=True)
        target = np.array([QUEUES.index(label) for label in labels])
        rows = embed(module, list(train))
        oracle = LogisticRegression(C=30.0, max_iter=3000, tol=1e-8).fit(rows, target)
        fit(module, ToyTexts(batch_size=12), 1, Watch())
        places = seen["batch"].index.numpy()
        logs = oracle.predict_log_proba(rows[places])
        wanted = -logs[np.arange(len(places)), target[places]].mean()
        units = torch.from_numpy(rows[places])
        wanted += contrast * supervised_contrastive_loss(units, torch.from_numpy(target[places]), 0.2).item()
        assert seen["loss"] == pytest.approx(wanted, abs=2e-3)


def test_batches_hold_several_classes_with_several_examples(folder):
    seen: list[list[int]] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
            seen.append(sorted(batch.target.tolist()))

    fit(module_of(folder, examples_per_class=2), ToyTexts(batch_size=6), 2, Watch())
    assert seen == [[0, 0, 1, 1, 2, 2]] * 4


@pytest.mark.parametrize("schedule", ["full", "partial"])
def test_a_fit_goes_on_from_a_checkpoint_as_if_uninterrupted(folder, tmp_path, schedule):
    def freezer() -> BackboneFreezeUnfreeze:
        return BackboneFreezeUnfreeze(schedule, num_open_groups=1, verbose=False)

    whole = module_of(folder)
    fit(whole, ToyTexts(), 3, freezer(), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1))
    again = module_of(folder)
    fit(again, ToyTexts(), 3, freezer(), ckpt_path=tmp_path / "epoch=0.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    start = module_of(folder).backbone.state_dict()
    stem = "model.embeddings.word_embeddings.weight"
    assert torch.equal(whole.backbone.state_dict()[stem], start[stem]) == (schedule == "partial")


def test_the_checkpoint_of_an_epochs_end_holds_the_head_that_fits_it(folder, tmp_path):
    """Also where nothing is validated; and it is enough alone."""
    module, data = module_of(folder), ToyTexts()
    data.val_dataloader = lambda: []  # type: ignore[method-assign]
    fit(module, data, 2, ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True))
    again = TransferModule.from_checkpoint(tmp_path / "last.ckpt")
    assert type(again) is FewShotModule
    train, labels = zip(*make_tickets(4, 0), strict=True)
    oracle = LogisticRegression(C=30.0, max_iter=1000).fit(embed(module, list(train)), labels)
    texts = [text for text, _ in make_tickets(6, 3)]
    with torch.no_grad():
        logits = again(data.preprocessing.collate([data.preprocessing(text) for text in texts]))
    assert [QUEUES[place] for place in logits.argmax(1)] == oracle.predict(embed(module, texts)).tolist()


@pytest.mark.parametrize("first", [None, ["card gone", "my card is lost"]])
def test_each_description_is_one_more_example_for_the_head(folder, first):
    given = "names" if first is None else {QUEUES[0]: first}
    module = module_of(folder, lr=0.0, descriptions=given, inverse_penalty=3.0)
    fit(module, ToyTexts(), 1)
    own = {QUEUES[0]: first or ["card lost"], QUEUES[1]: ["late parcel"], QUEUES[2]: ["money back"]}
    assert module.descriptions == own
    train, labels = zip(*make_tickets(4, 0), strict=True)
    texts = [*train, *(text for described in own.values() for text in described)]
    names = [*labels, *(name for name, described in own.items() for _ in described)]
    oracle = LogisticRegression(C=3.0, max_iter=3000, tol=1e-8).fit(
        embed(module, texts), [QUEUES.index(name) for name in names]
    )
    linear = module.head[-1]
    wanted = torch.from_numpy(oracle.coef_).float()
    found = linear.weight.detach() * linear.in_features**0.5
    torch.testing.assert_close(found - found.mean(0), wanted - wanted.mean(0), rtol=0, atol=0.01)
    assert module.rebuild_arguments()["descriptions"] == own


def test_two_classes_have_one_logit_or_two(folder):
    for task, classes in (("binary", ("no", "yes")), ("multiclass", ("no", "yes"))):
        module = module_of(folder)
        module.use_schema(Schema(task=task, classes=classes))
        module.configure_model()
        generator = np.random.default_rng(0)
        rows = generator.normal(size=(20, 16))
        target = (rows[:, 0] > 0).astype(int)
        oracle = LogisticRegression(C=10.0).fit(rows, target)
        module._write(torch.from_numpy(oracle.coef_), torch.from_numpy(oracle.intercept_), [0, 1])
        directions = torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).float()
        with torch.no_grad():
            logits = module.head(directions)
        found = torch.sigmoid(logits[:, 0]) if task == "binary" else logits.softmax(1)[:, 1]
        wanted = torch.from_numpy(oracle.predict_proba(directions.numpy())[:, 1]).float()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_class_without_examples_is_never_the_answer(folder):
    module = module_of(folder)
    module.use_schema(schema_of())
    module.configure_model()
    module._write(torch.randn(2, 16), torch.zeros(2), [0, 2])
    with torch.no_grad():
        assert 1 not in module.head(torch.randn(200, 16)).argmax(1)


def test_adapters_are_trained_by_contrast_too(folder, tmp_path):
    module = module_of(folder, lora=LoraOptions(rank=2))
    trainer = fit(module, ToyTexts(), 1)
    names = {name for name, value in module.named_parameters() if value.requires_grad}
    assert names
    assert all("lora" in name for name in names)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in module.state_dict().items())


def test_many_examples_are_said_to_want_another_way(folder, caplog):
    module = module_of(folder)
    with caplog.at_level(logging.INFO):
        fit(module, ToyTexts(21), 1)
    assert "Half of the classes have 21 training examples or more: above 20, full fine-tuning" in caplog.text
    assert len(module.plan_notes()) == 2
    few = module_of(folder)
    few.use_schema(schema_of(20))
    assert len(few.plan_notes()) == 1


def test_a_plain_loader_will_do_and_other_data_are_refused(folder):
    module = module_of(folder)
    module.use_schema(schema_of())
    data = ToyTexts()
    data.preprocessing = data.make_preprocessing(module.card)
    items = [(data.preprocessing(text), QUEUES.index(label)) for text, label in make_tickets(4)]

    def collate(rows: list[Any]) -> Batch:
        inputs, target = zip(*rows, strict=True)
        return Batch(data.preprocessing.collate(inputs), torch.tensor(target), torch.arange(len(rows)))

    fit(module, DataLoader(items, batch_size=6, shuffle=True, collate_fn=collate), 1)
    assert module.head[-1].weight.abs().sum() > 0
    other = module_of(folder)
    other.use_schema(schema_of())
    with pytest.raises(MisconfigurationException, match="come as batches made elsewhere"):
        fit(other, DataLoader([collate(items)], batch_size=None), 1)


def test_the_network_from_scratch_can_be_trained_in_the_same_way(folder):
    module, data = module_of(folder), ToyTexts()
    fit(module, data, 1)
    found = fit_scratch(
        module, data.train_dataloader(), data.val_dataloader(), learning_rates=[1e-2], max_epochs=2,
        trainer_options={"accelerator": "cpu"},
    )  # fmt: skip
    assert type(found.module) is FewShotModule
    assert found.module.head[-1].weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"contrast": -0.5}, "`contrast` of at least 0, got -0.5"),
        ({"temperature": 0.0}, "`temperature` above 0, got 0.0"),
        ({"examples_per_class": 1}, "`examples_per_class` of at least 2, got 1"),
        ({"inverse_penalty": -1.0}, "`inverse_penalty` above 0, got -1.0"),
    ],
)
def test_wrong_numbers_are_refused(folder, options, said):
    with pytest.raises(ValueError, match=said):
        module_of(folder, **options)


def test_what_cannot_be_contrasted_is_refused(folder):
    module = module_of(folder)
    module.use_schema(Schema(task="multilabel", classes=QUEUES))
    with pytest.raises(MisconfigurationException, match="multi-label"):
        module.configure_model()
    module = module_of(folder)
    module.use_schema(Schema(task="multiclass", classes=QUEUES, sampling="weighted"))
    with pytest.raises(MisconfigurationException, match="few-shot batches are balanced already"):
        module.configure_model()
    module = module_of(folder, descriptions={"cards": "gone"})
    module.use_schema(schema_of())
    with pytest.raises(DataError, match="`cards`, which is no class"):
        module.configure_model()
    with pytest.raises(ValueError, match="batch of 10 cannot hold"):
        fit(module_of(folder), ToyTexts(batch_size=10), 1)


def test_several_processes_are_refused(folder):
    class Pair:
        world_size = 2

    module = module_of(folder)
    module._trainer = Pair()  # type: ignore[assignment]
    with pytest.raises(MisconfigurationException, match="there are 2"):
        module.setup("fit")
