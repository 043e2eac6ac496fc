"""Classes by their descriptions alone. Oracle: the cosines of embeddings that transformers computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from lightning_transfer.callbacks import ExactResume
from lightning_transfer.errors import DataError
from lightning_transfer.modules import TransferModule, ZeroShotModule
from lightning_transfer.types import Schema
from tests.unit.modules.text_toys import QUEUES, WORDS, ToyTexts, make_encoder, make_tickets, schema_of

transformers = pytest.importorskip("transformers")

# Mean pooling over random embeddings: a description with a queue's words is near to texts with these words.
DESCRIPTIONS = {name: " ".join(words) for name, words in WORDS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / "bert")


def cosines(folder: Path, texts: list[str], descriptions: list[str]) -> torch.Tensor:
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    left, right = (torch.stack([embed(text) for text in given]) for given in (texts, descriptions))
    return torch.nn.functional.cosine_similarity(left[:, None], right[None], dim=2)


def trainer_for(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=5, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, **options,
    )  # fmt: skip


def inputs(module: Any, texts: list[str], data: ToyTexts) -> dict[str, torch.Tensor]:
    return data.preprocessing.collate([data.preprocessing(text) for text in texts])


def test_a_fit_trains_nothing_and_gives_the_cosines(folder, tmp_path):
    module, data = ZeroShotModule(str(folder), descriptions=DESCRIPTIONS, scale=7.0), ToyTexts()
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    trainer = trainer_for(tmp_path, callbacks=[ExactResume()])
    trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == 1  # of five
    assert not [name for name, value in module.named_parameters() if value.requires_grad]
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())
    texts = [text for text, _ in make_tickets(6, 3)]
    with torch.no_grad():
        logits = module.eval()(inputs(module, texts, data))
    wanted = cosines(folder, texts, [DESCRIPTIONS[name] for name in QUEUES])
    torch.testing.assert_close(logits, 7.0 * wanted, rtol=1e-4, atol=1e-4)
    val, labels = zip(*make_tickets(6, 1), strict=True)
    nearest = cosines(folder, list(val), [DESCRIPTIONS[name] for name in QUEUES]).argmax(1).tolist()
    wanted_accuracy = sum(QUEUES[place] == label for place, label in zip(nearest, labels, strict=True)) / len(labels)
    assert wanted_accuracy > 0.4
    assert trainer.callback_metrics["val_accuracy"].item() == pytest.approx(wanted_accuracy)


def test_several_descriptions_count_as_the_mean_of_their_directions(folder, tmp_path):
    several = {QUEUES[0]: ["card", "lost stolen"], QUEUES[1]: ["late parcel"], QUEUES[2]: ["money", "back", "refund"]}
    module, data = ZeroShotModule(str(folder), descriptions=several, scale=3.0), ToyTexts()
    trainer_for(tmp_path).fit(module, datamodule=data)
    texts = [text for text, _ in make_tickets(6, 3)]
    with torch.no_grad():
        logits = module.eval()(inputs(module, texts, data))
    for place, name in enumerate(QUEUES):
        found = cosines(folder, texts, several[name])
        # The cosine to a mean of directions: the mean of the cosines over the length of that mean.
        among = cosines(folder, several[name], several[name]).mean().sqrt()
        torch.testing.assert_close(logits[:, place], 3.0 * found.mean(1) / among, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_alone_predicts_the_same(folder, tmp_path):
    module, data = ZeroShotModule(str(folder), descriptions={QUEUES[0]: "card lost"}), ToyTexts()
    trainer = trainer_for(tmp_path)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    assert type(again) is ZeroShotModule
    assert again.descriptions == {QUEUES[0]: ["card lost"], QUEUES[1]: ["late parcel"], QUEUES[2]: ["money back"]}
    batch = inputs(module, ["card lost", "hello money"], data)
    with torch.no_grad():
        assert torch.equal(again(batch), module.eval()(batch))


def test_the_test_loop_runs_as_that_of_any_classifier(folder, tmp_path):
    module, data = ZeroShotModule(str(folder)), ToyTexts()
    trainer = trainer_for(tmp_path)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert sum(len(output.index) for output in module.test_outputs) == 18


def test_two_classes_with_one_logit_are_the_difference_of_their_cosines(folder):
    module = ZeroShotModule(str(folder), scale=3.0)
    module.use_schema(Schema(task="binary", classes=("late parcel", "money back")))
    module.configure_model()
    module.describe()
    data = ToyTexts()
    data.preprocessing = data.make_preprocessing(module.card)
    texts = ["where is my parcel", "refund my money"]
    found = cosines(folder, texts, ["late parcel", "money back"])
    with torch.no_grad():
        logits = module.eval()(inputs(module, texts, data))
    torch.testing.assert_close(logits[:, 0], 3.0 * (found[:, 1] - found[:, 0]), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_told_by_descriptions_is_refused(folder):
    with pytest.raises(ValueError, match="`scale` above 0, got 0"):
        ZeroShotModule(str(folder), scale=0)
    module = ZeroShotModule(str(folder))
    module.use_schema(Schema(task="multilabel", classes=QUEUES))
    with pytest.raises(MisconfigurationException, match="multi-label"):
        module.configure_model()
    module = ZeroShotModule(str(folder), descriptions={"cards": "gone"})
    module.use_schema(schema_of())
    with pytest.raises(DataError, match="`cards`, which is no class"):
        module.configure_model()
    with pytest.raises(MisconfigurationException, match="no head yet"):
        ZeroShotModule(str(folder)).describe()


def test_the_plan_shows_each_description(folder):
    module = ZeroShotModule(str(folder), descriptions={QUEUES[0]: ["card gone", "lost"]})
    module.use_schema(schema_of())
    module.configure_model()
    assert module.plan_notes()[1:] == [
        "card_lost: card gone / lost",
        "late-parcel: late parcel",
        "money/back: money back",
    ]
