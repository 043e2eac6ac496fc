"""Whisper's module against transformers' own loss and generation, and checkpoints that are enough alone."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.backbones import LoraOptions
from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from lightning_transfer.modules import Seq2SeqModule, SpecAugment, TransferModule
from lightning_transfer.types import Batch, Schema
from tests.unit.backbones.speech_toys import save_ctc, save_whisper, sound
from tests.unit.modules.speech_toys import loader, quiet_trainer

transformers = pytest.importorskip("transformers")

TEXTS = ["call me back", "one two three", "seven seven seven"]
SCHEMA = Schema(task="transcription", classes=(), preprocessing={"scoring_normaliser": "basic"})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object, object]:
    folder = tmp_path_factory.mktemp("whisper")
    model = save_whisper(folder, TEXTS)
    return folder, model, transformers.WhisperTokenizer.from_pretrained(folder)


def loaded(folder: Path, **arguments: object) -> Seq2SeqModule:
    module = Seq2SeqModule(str(folder), **{"language": "en", **arguments})  # type: ignore[arg-type]
    module.use_schema(SCHEMA)
    module.configure_model()
    return module


def batch_of(tokenizer: object, texts: list[str] = TEXTS, *, first: int = 0) -> Batch:
    rows = [torch.tensor(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]  # type: ignore
    target = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    inputs = sound("whisper", [100, 80, 50][: len(texts)])
    return Batch(inputs, target, torch.arange(first, first + len(texts)))


def test_loss_and_gradients_are_transformers_own(saved) -> None:
    folder, oracle, tokenizer = saved
    module = loaded(folder).eval()
    batch = batch_of(tokenizer)
    prompted = transformers.WhisperTokenizer.from_pretrained(folder, language="en", task="transcribe")
    # As transformers' fine-tuning script does it: the start is cut off, since the model puts it there again.
    rows = [torch.tensor(prompted(text).input_ids[1:]) for text in TEXTS]
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    oracle.zero_grad()
    expected = oracle(input_features=batch.input["input_features"], labels=labels).loss
    loss, too_long = module.loss(batch.input, batch.target)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert not too_long.any()
    expected.backward()
    loss.backward()
    own = dict(module.network.model.named_parameters())
    for name, value in oracle.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(own[name].grad, value.grad)


def test_special_tokens_in_a_target_are_not_doubled(saved) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder)
    plain = batch_of(tokenizer, TEXTS[:1]).target
    framed = torch.tensor([tokenizer(TEXTS[0]).input_ids])
    assert framed.shape[1] > plain.shape[1]
    for one, other in zip(module.teach(plain), module.teach(framed), strict=True):
        assert torch.equal(one, other)
    given, wanted, _ = module.teach(plain)
    assert tokenizer.convert_ids_to_tokens(given[0])[:4] == [
        "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"
    ]  # fmt: skip
    assert wanted[0].tolist() == [*given[0].tolist()[1:], tokenizer.eos_token_id]


@pytest.mark.parametrize("beams", [1, 2])
def test_transcripts_are_what_transformers_generates(tmp_path: Path, beams: int) -> None:
    folder, oracle = tmp_path, save_whisper(tmp_path, TEXTS, init_std=0.5)  # lively weights, that say something
    tokenizer = transformers.WhisperTokenizer.from_pretrained(folder)
    module = loaded(folder, num_beams=beams, max_new_tokens=8).eval()
    batch = batch_of(tokenizer)._replace(index=torch.tensor([[4, 0, 1], [5, 0, 2], [5, 1, 2]]))
    expected = oracle.generate(
        batch.input["input_features"], language="en", task="transcribe", num_beams=beams, max_new_tokens=8
    )
    heard = module.predict_step(batch, 0)
    assert [item.text for item in heard] == [
        text.strip() for text in tokenizer.batch_decode(expected, skip_special_tokens=True)
    ]
    assert all(item.text for item in heard)
    assert [(item.index, item.piece, item.num_pieces) for item in heard] == [(4, 0, 1), (5, 0, 2), (5, 1, 2)]
    assert [item.seconds for item in heard] == pytest.approx([1.0, 0.8, 0.5])
    assert all(item.confidence is None or 0 < item.confidence <= 1 for item in heard)


def test_few_utterances_are_learnt_by_heart(saved) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder, optimizer=lambda values: torch.optim.Adam(values, lr=1e-2))
    batch = batch_of(tokenizer)
    trainer = quiet_trainer(max_epochs=60, check_val_every_n_epoch=60)
    trainer.fit(module, loader([batch]), loader([batch]))
    assert float(trainer.callback_metrics["val_wer"]) == 0.0
    assert float(trainer.callback_metrics["val_cer"]) == 0.0
    heard = module.eval().predict_step(batch, 0)
    assert [item.text for item in heard] == TEXTS
    assert [item.problem for item in heard] == ["", "", ""]
    assert min(item.confidence for item in heard) > 0.5


def test_loops_and_texts_without_end_are_marked(saved) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder)
    seven = tokenizer(" seven", add_special_tokens=False).input_ids
    end = tokenizer.eos_token_id

    def problem(tokens: list[int]) -> str:
        return module._transcript((0, 0, 1), tokens, [0.5] * len(tokens), 1.0).problem

    assert problem([*seven, end, 0]) == ""
    assert problem(seven * 2) == "without end"
    assert problem([*(seven * 9), end]) == "repeats itself"
    heard = module._transcript((0, 0, 1), [*seven, end], [0.5] * len(seven) + [1e-9], 1.0)
    assert heard.confidence == pytest.approx(0.5), "the end is no part of the text"
    assert heard.words == ()


def test_texts_that_the_decoder_has_no_room_for_are_counted_and_said_once(saved, recwarn) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder)
    long = "one two three call me back " * 6
    batch = batch_of(tokenizer, ["call me", long, "back"], first=20)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(module, loader([batch, batch]))
    assert float(trainer.callback_metrics["train_too_long"]) == 2.0
    assert bool(torch.isfinite(trainer.callback_metrics["train_loss"]))
    said = [str(item.message) for item in recwarn if "decoder's 24 places" in str(item.message)]
    assert len(said) == 1
    assert "training record 21" in said[0]
    only = batch_of(tokenizer, [long])
    loss, too_long = module.loss(only.input, only.target)
    assert (float(loss), too_long.tolist()) == (0.0, [True])


@pytest.mark.parametrize("schedule", [{0: 2, 1: "all"}, "partial", "full"])
def test_schedules_freeze_encoder_and_decoder_by_depth(saved, schedule) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder)
    before = {name: value.clone() for name, value in module.named_parameters()}
    callbacks = [BackboneFreezeUnfreeze(schedule), DiscriminativeLR(total_ratio=0.5)]
    trainer = quiet_trainer(max_epochs=1, callbacks=callbacks, limit_val_batches=0)
    trainer.fit(module, loader([batch_of(tokenizer)]))
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert any(".decoder.layers.1." in name for name in moved)
    assert any(".encoder.layers.2." in name for name in moved)
    opened = schedule == "full"
    assert any(".encoder.layers.0." in name for name in moved) == opened
    assert any(".encoder.conv1" in name for name in moved) == opened
    assert not any("encoder.embed_positions" in name for name in moved), "fixed by its authors"


def test_a_schedule_that_opens_nothing_says_what_to_do(saved) -> None:
    folder, _, tokenizer = saved
    trainer = quiet_trainer(max_epochs=2, callbacks=[BackboneFreezeUnfreeze("gradual")], limit_val_batches=0)
    with pytest.raises(MisconfigurationException, match=r"Nothing is trainable at epoch 0.*schedule=\{0: 1\}"):
        trainer.fit(loaded(folder), loader([batch_of(tokenizer)]))


def test_a_checkpoint_is_enough_alone(saved, tmp_path: Path) -> None:
    folder, _, tokenizer = saved
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    module = loaded(copy, spec_augment=SpecAugment(time_masks=1), max_new_tokens=6)
    batch = batch_of(tokenizer)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(module, loader([batch]))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    shutil.rmtree(copy)
    restored = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    assert type(restored) is Seq2SeqModule
    assert (module.head_is_pretrained, restored.head_is_pretrained) == (True, False)
    assert restored.card == module.card
    assert restored.predict_step(batch, 0) == module.eval().predict_step(batch, 0)
    assert (restored.language, restored.max_new_tokens) == ("en", 6)
    model = restored.network.model
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight, "tied, as it was"


def test_adapters_train_alone_on_both_sides_and_are_restored(saved, tmp_path: Path) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder, lora=LoraOptions(rank=2))
    trained = [name for name, value in module.named_parameters() if value.requires_grad]
    assert all("lora_" in name for name in trained)
    assert any(".encoder.layers." in name for name in trained)
    assert any(".decoder.layers." in name for name in trained)
    before = {name: value.clone() for name, value in module.named_parameters()}
    batch = batch_of(tokenizer)
    trainer = quiet_trainer(max_epochs=2, callbacks=[BackboneFreezeUnfreeze({0: 2, 1: "all"})])
    trainer.fit(module, loader([batch]), loader([batch]))
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert moved <= set(trained)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    restored = Seq2SeqModule.from_checkpoint(tmp_path / "model.ckpt")
    assert restored.predict_step(batch, 0) == module.eval().predict_step(batch, 0)


def test_masks_are_laid_in_training_alone(saved) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder, spec_augment=SpecAugment(time_masks=4, time_width=30, time_share=1.0)).eval()
    batch = batch_of(tokenizer)
    before = batch.input["input_features"].clone()
    with torch.no_grad():
        plain = float(module.loss(batch.input, batch.target)[0])
        torch.manual_seed(1)
        masked = float(module.loss(batch.input, batch.target, augment=True)[0])
        torch.manual_seed(1)
        again = float(module.loss(batch.input, batch.target, augment=True)[0])
    assert plain == float(module.loss(batch.input, batch.target)[0])
    assert masked == again != plain
    assert torch.equal(batch.input["input_features"], before)


def test_in_bf16_the_loss_is_finite_and_float32(saved) -> None:
    folder, _, tokenizer = saved
    module = loaded(folder)
    batch = batch_of(tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = module.loss(batch.input, batch.target)
    assert loss.dtype == torch.float32
    trainer = quiet_trainer(max_epochs=1, precision="bf16-mixed")
    trainer.fit(module, loader([batch]), loader([batch]))
    assert bool(torch.isfinite(trainer.callback_metrics["val_loss"]))
    assert "val_wer" in trainer.callback_metrics


def test_features_are_the_mean_of_the_encoders_frames(saved) -> None:
    folder, oracle, tokenizer = saved
    module = loaded(folder).eval()
    batch = batch_of(tokenizer)
    with torch.no_grad():
        hidden = oracle.get_encoder()(batch.input["input_features"]).last_hidden_state
        torch.testing.assert_close(module.features(batch.input)[1], hidden[1, :40].mean(0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"language": None}, MisconfigurationException, "knows 3 languages. Say which is spoken"),
        ({"language": "klingon"}, MisconfigurationException, "does not know the language `klingon`.*de, en, zh"),
        ({"num_beams": 0}, ValueError, "`num_beams` of at least 1, got 0"),
        ({"max_new_tokens": 21}, ValueError, "from 1 to 20, got 21"),
    ],
)
def test_wrong_arguments_are_named(saved, arguments, error, message: str) -> None:
    with pytest.raises(error, match=message):
        loaded(saved[0], **arguments)


def test_a_vocabulary_of_the_data_is_refused(saved) -> None:
    module = Seq2SeqModule(str(saved[0]), language="german")
    module.use_schema(Schema(task="transcription", classes=("a", "b")))
    with pytest.raises(MisconfigurationException, match=r"vocabulary of 2 tokens.*`CTCModule`"):
        module.configure_model()


def test_a_ctc_model_is_refused(tmp_path: Path, caplog) -> None:
    save_ctc(tmp_path, "hubert")
    with caplog.at_level(logging.INFO), pytest.raises(Exception, match="writes no text by itself"):
        Seq2SeqModule(str(tmp_path))


def test_a_plan_tries_it_with_a_text(saved) -> None:
    folder, _, tokenizer = saved
    module, batch = loaded(folder), batch_of(tokenizer)
    given, _, _ = module.teach(batch.target)
    logits = module(module.trial_input(batch))
    assert logits.shape[:2] == given.shape
