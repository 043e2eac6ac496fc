"""The CTC module against transformers, jiwer, torchaudio's alignment, and the uninterrupted run."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_transfer.backbones import LoraOptions
from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from lightning_transfer.callbacks.exact_resume import ExactResume
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import CheckpointError
from lightning_transfer.modules import BeamSearch, ClassificationModule, CTCModule, SpecAugment, TransferModule
from lightning_transfer.types import Batch, Schema
from tests.unit.backbones.speech_toys import FAMILIES, TOKENS, save_ctc, sound
from tests.unit.modules.speech_toys import (
    CARD,
    PREPROCESSING,
    SCHEMA,
    TEXTS,
    VOCABULARY,
    loader,
    mel_batch,
    quiet_trainer,
    targets,
)

transformers = pytest.importorskip("transformers")

PRETRAINED = CTCVocabulary(TOKENS, "<pad>", "|", "<unk>")
TARGET = torch.tensor([[5, 6, 4, 7, 8, 5], [6, 6, 7, -100, -100, -100], [8, -100, -100, -100, -100, -100]])
LENGTHS = [400, 250, 61]


def schema_of(vocabulary: CTCVocabulary, **extra: object) -> Schema:
    preprocessing = {"vocabulary": vocabulary.to_dict(), "scoring_normaliser": "basic", **extra}
    return Schema(task="transcription", classes=vocabulary.tokens, preprocessing=preprocessing)


def toy(seed: int = 0, **arguments: object) -> CTCModule:
    torch.manual_seed(seed)
    module = CTCModule("toy", weights="random", card=CARD, **arguments)  # type: ignore[arg-type]
    module.use_schema(SCHEMA)
    module.configure_model()
    return module


def loaded(folder: Path, vocabulary: CTCVocabulary = PRETRAINED, **arguments: object) -> CTCModule:
    module = CTCModule(str(folder), **arguments)  # type: ignore[arg-type]
    module.use_schema(schema_of(vocabulary))
    module.configure_model()
    return module


def test_a_lexicon_rules_what_is_transcribed_and_travels_with_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("flashlight", reason="the extra `beam` is not installed")
    words = sorted({word for text in TEXTS for word in text.split()})[:2]
    module, plain = toy(decoding=BeamSearch(words, beam_size=20)).eval(), toy().eval()
    batch = mel_batch()
    free = [heard.text for heard in plain.transcribe(batch)]
    bound = [heard.text for heard in module.transcribe(batch)]
    assert any(bound)
    assert {word for text in bound for word in text.split()} <= set(words)
    assert free != bound
    assert {word for text in free for word in text.split()} - set(words)
    trainer = quiet_trainer()
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = sorted({word for text in TEXTS for word in text.split()})[-1]
    module.decoding = BeamSearch([other])
    assert {word for heard in module.transcribe(batch) for word in heard.text.split()} == {other}
    again = TransferModule.from_checkpoint(tmp_path / "a.ckpt")
    assert isinstance(again, CTCModule)
    assert again.decoding == BeamSearch(words, beam_size=20)
    assert [heard.text for heard in again.eval().transcribe(batch)] == bound


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_logits_are_transformers_own(family: str, tmp_path: Path) -> None:
    oracle = save_ctc(tmp_path, family, ctc_loss_reduction="mean", ctc_zero_infinity=True)
    module = loaded(tmp_path).eval()
    # transformers knows the lengths by the mask, which group norm may not see: there without padding.
    batch = sound(family, LENGTHS if FAMILIES[family][1].get("feat_extract_norm") != "group" else [400] * 3)
    given = (
        batch if FAMILIES[family][1].get("feat_extract_norm") != "group" else {"input_values": batch["input_values"]}
    )
    with torch.no_grad():
        expected = oracle(**given, labels=TARGET)
        logits, lengths = module(batch)
        loss, too_short = module.loss(logits, lengths, TARGET)
    torch.testing.assert_close(logits, expected.logits)
    assert float(loss) == pytest.approx(float(expected.loss), abs=1e-5)
    assert not too_short.any()


def test_a_blank_that_is_not_the_first_token_counts_as_transformers_counts_it(tmp_path: Path) -> None:
    tokens = (*TOKENS[1:], "<pad>")
    last = {"tokens": tokens, "pad_token_id": len(tokens) - 1}
    oracle = save_ctc(tmp_path, "wavlm", ctc_loss_reduction="mean", ctc_zero_infinity=True, **last)
    module = loaded(tmp_path, CTCVocabulary(tokens, "<pad>", "|", "<unk>")).eval()
    assert module.vocabulary == CTCVocabulary.from_card(module.card)
    batch = sound("wavlm", LENGTHS)
    with torch.no_grad():
        loss, _ = module.loss(*module(batch), TARGET)
        expected = oracle(**batch, labels=TARGET).loss
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        logits, lengths = module(batch)
    said = [tokenizer.decode(row[:count]) for row, count in zip(logits.argmax(-1), lengths, strict=True)]
    assert [item.text for item in module.predict_step(Batch(batch, None, torch.arange(3)), 0)] == [
        " ".join(text.replace("<unk>", "").replace("<s>", "").replace("</s>", "").split()) for text in said
    ]


def test_gradients_are_transformers_own(tmp_path: Path) -> None:
    oracle = save_ctc(tmp_path, "wav2vec2_bert", ctc_loss_reduction="mean", ctc_zero_infinity=True)
    module = loaded(tmp_path).eval()
    batch = sound("wav2vec2_bert", LENGTHS)
    oracle(**batch, labels=TARGET).loss.backward()
    module.loss(*module(batch), TARGET)[0].backward()
    own = dict(module.encoder.model.named_parameters())
    for name, value in oracle.wav2vec2_bert.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(own[name].grad, value.grad)
    torch.testing.assert_close(module.head[0].weight.grad, oracle.lm_head.weight.grad)


def test_a_tones_letters_are_learnt_to_the_last_in_seconds() -> None:
    module = toy(optimizer=lambda values: torch.optim.Adam(values, lr=1e-2))
    batches = [mel_batch()]
    trainer = quiet_trainer(max_epochs=80, check_val_every_n_epoch=80)
    trainer.fit(module, loader(batches), loader(batches))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val_wer"] == 0.0
    assert logged["val_cer"] == 0.0
    assert logged["val_loss"] < 0.1
    assert logged["train_too_short"] == 0.0
    assert 0.3 < logged["val_blank_share"] < 0.95
    heard = module.eval().predict_step(batches[0], 0)
    assert [item.text for item in heard] == list(TEXTS)
    assert [item.index for item in heard] == list(range(len(TEXTS)))
    assert all(item.confidence is not None and item.confidence > 0.9 for item in heard)
    assert all(item.problem == "" for item in heard)


def test_words_lie_where_torchaudio_aligns_them() -> None:
    align = pytest.importorskip("torchaudio.functional").forced_align
    module = toy(optimizer=lambda values: torch.optim.Adam(values, lr=1e-2))
    batch = mel_batch(["bad cab"])
    quiet_trainer(max_epochs=60, limit_val_batches=0).fit(module, loader([batch]))
    module.eval()
    with torch.no_grad():
        logits, lengths = module(batch.input)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says at every call that it will go
        path, _ = align(logits.log_softmax(-1), targets(["bad cab"]).int(), lengths.int(), blank=VOCABULARY.blank_id)
    frames = path[0].tolist()
    assert VOCABULARY.decode(frames) == "bad cab"
    space = VOCABULARY.tokens.index("|")
    spoken = [place for place, token in enumerate(frames) if token not in (VOCABULARY.blank_id, space)]
    gap = frames.index(space)
    expected = [
        (min(spoken), max(place for place in spoken if place < gap) + 1),
        (min(place for place in spoken if place > gap), max(spoken) + 1),
    ]
    (heard,) = module.transcribe(batch)
    assert [word for word, _, _ in heard.words] == ["bad", "cab"]
    for (_, begin, end), (first, last) in zip(heard.words, expected, strict=True):
        assert begin == pytest.approx(first * 0.02)
        assert end == pytest.approx(last * 0.02)


def test_error_rates_are_all_errors_over_all_words_as_jiwer_counts_them() -> None:
    jiwer = pytest.importorskip("jiwer")
    module = toy(seed=3)
    # Batches of very different size: a mean over batches would be another number.
    batches = [mel_batch(TEXTS[:5]), mel_batch(TEXTS[5:])]
    trainer = quiet_trainer(max_epochs=12, limit_val_batches=0)
    trainer.fit(module, loader(batches))
    (logged,) = quiet_trainer().validate(module, loader(batches), verbose=False)
    heard = [item.text for batch in batches for item in module.eval().predict_step(batch, 0)]
    assert logged["val_wer"] == pytest.approx(jiwer.wer(list(TEXTS), heard))
    assert logged["val_cer"] == pytest.approx(jiwer.cer(list(TEXTS), heard))


def test_the_scoring_normaliser_is_applied_to_both_sides(tmp_path: Path) -> None:
    capitals = CTCVocabulary(tuple(token.upper() for token in VOCABULARY.tokens), "<PAD>", "|")
    module = toy()
    module.vocabulary = capitals
    assert module.reference_texts(targets(["abba", "cc d"])) == ["ABBA", "CC D"]
    seen = []
    module.val_wer.update = lambda said, heard: seen.append((said, heard))  # type: ignore[method-assign]
    module.log = lambda *args, **options: None  # type: ignore[method-assign, assignment]
    module.update_errors(mel_batch(["abba"]), module.eval().transcribe(mel_batch(["abba"])))
    assert seen[0][0] == ["abba"]
    assert all(text == text.lower() for text in seen[0][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_finite_and_float32(dtype: torch.dtype) -> None:
    module = toy()
    batch = mel_batch()
    with torch.autocast("cpu", dtype=dtype):
        logits, lengths = module(batch.input)
        loss, _ = module.loss(logits, lengths, batch.target)
    assert logits.dtype == dtype
    assert loss.dtype == torch.float32
    assert bool(torch.isfinite(loss))
    exact, _ = module.loss(logits.float(), lengths, batch.target)
    torch.testing.assert_close(loss, exact)


def test_training_in_bf16_logs_a_finite_loss() -> None:
    trainer = quiet_trainer(max_epochs=1, precision="bf16-mixed")
    trainer.fit(toy(), loader([mel_batch()]), loader([mel_batch()]))
    assert bool(torch.isfinite(trainer.callback_metrics["val_loss"]))


def test_texts_longer_than_their_sound_are_counted_and_said_once(recwarn: pytest.WarningsRecorder) -> None:
    module = toy()
    batch = mel_batch()
    long = torch.randint(2, 6, (len(TEXTS), 70), generator=torch.Generator().manual_seed(0))
    target = torch.where(
        torch.tensor([False, True, False, False, True, False])[:, None], long, torch.full_like(long, -100)
    )
    target[:, :3] = torch.where(target[:, :3] < 0, torch.tensor([2, 3, 4]), target[:, :3])
    both = [batch._replace(target=target, index=torch.arange(10, 16)), batch._replace(target=target)]
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(module, loader(both))
    assert float(trainer.callback_metrics["train_too_short"]) == 4.0
    assert bool(torch.isfinite(trainer.callback_metrics["train_loss"]))
    said = [str(item.message) for item in recwarn if "fewer frames than their text" in str(item.message)]
    assert len(said) == 1
    assert "2 of 6 recordings" in said[0]
    assert "training record 11" in said[0]


def test_the_checkpoints_head_is_the_start_where_the_vocabulary_is_the_same(tmp_path: Path) -> None:
    oracle = save_ctc(tmp_path, "wavlm")
    module = loaded(tmp_path)
    torch.testing.assert_close(module.head[0].weight, oracle.lm_head.weight)
    torch.testing.assert_close(module.head[0].bias, oracle.lm_head.bias)
    assert module._start == "The vocabulary is the checkpoint's: its head of 10 tokens is the start."
    assert module.head_is_pretrained
    assert not any("lm_head" in name or "_pretrained" in name for name in module.state_dict())


def test_of_another_vocabulary_known_rows_stay_and_the_others_are_named(tmp_path: Path, caplog: object) -> None:
    oracle = save_ctc(tmp_path, "hubert")
    new = CTCVocabulary(("<pad>", "|", "b", "a", "x"))
    module = loaded(tmp_path, new)
    rows = [TOKENS.index(token) for token in ("<pad>", "|", "b", "a")]
    torch.testing.assert_close(module.head[0].weight[:4], oracle.lm_head.weight[rows])
    torch.testing.assert_close(module.head[0].bias[:4], oracle.lm_head.bias[rows])
    assert not torch.equal(module.head[0].weight[4], oracle.lm_head.weight[4])
    assert "4 of 5 tokens begin with the checkpoint's rows; new: x" in module._start
    assert "left out: <s>, </s>, <unk>, c, d, '" in module._start
    assert not module.head_is_pretrained
    assert loaded(tmp_path, CTCVocabulary(("<pad>", "|", "b"))).head_is_pretrained
    assert not toy().head_is_pretrained


@pytest.mark.parametrize(("head", "message"), [(False, "The head is new"), (True, "")])
def test_why_a_head_is_new_is_said_in_a_fit(
    head: bool, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_ctc(tmp_path, "hubert", head=head)
    module = loaded(tmp_path)
    batch = Batch(sound("hubert", [400, 300]), TARGET[:2], torch.arange(2))
    with caplog.at_level("INFO"):
        quiet_trainer(max_epochs=1, limit_val_batches=0).fit(module, loader([batch]))
    assert message or "is the start" in caplog.text
    assert message in caplog.text


def test_the_feature_encoder_stays_frozen_whatever_a_schedule_opens(tmp_path: Path) -> None:
    save_ctc(tmp_path, "wav2vec2_layer")
    for choice, stays in (("frozen", True), ("open", False)):
        module = loaded(tmp_path, feature_encoder=choice)
        before = {name: value.clone() for name, value in module.named_parameters()}
        batch = Batch(sound("wav2vec2_layer", [400, 300]), TARGET[:2], torch.arange(2))
        callbacks = [BackboneFreezeUnfreeze({0: 0, 1: "all"}), DiscriminativeLR(total_ratio=0.5)]
        trainer = quiet_trainer(max_epochs=3, limit_val_batches=0, callbacks=callbacks)
        trainer.fit(module, loader([batch]))
        moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
        convolutions = {name for name in before if ".feature_extractor." in name}
        assert convolutions
        assert moved & convolutions == (set() if stays else convolutions)
        assert {name for name in before if ".encoder.layers." in name} <= moved
        assert "head.0.weight" in moved


@pytest.mark.parametrize("family", ["hubert", "wavlm", "wav2vec2_bert"])
@pytest.mark.parametrize("schedule", ["gradual", "feature_extraction"])
def test_schedules_freeze_by_depth(family: str, schedule: str, tmp_path: Path) -> None:
    save_ctc(tmp_path, family)
    module = loaded(tmp_path)
    before = {name: value.clone() for name, value in module.named_parameters()}
    batch = Batch(sound(family, [400, 300]), TARGET[:2], torch.arange(2))
    callback = BackboneFreezeUnfreeze(schedule)
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=[callback, DiscriminativeLR(layer_decay=0.5)])
    trainer.fit(module, loader([batch]))
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    last = {name for name in before if ".encoder.layers.1." in name}
    assert {"head.0.weight", "head.0.bias"} <= moved
    assert not any(".encoder.layers.0." in name for name in moved)
    assert bool(moved & last) == (schedule == "gradual")


def test_masks_are_laid_in_training_alone_and_repeat_with_the_seed(tmp_path: Path) -> None:
    save_ctc(tmp_path, "wav2vec2_bert", conformer_conv_dropout=0.0)
    module = loaded(tmp_path, spec_augment=SpecAugment(time_masks=2, time_width=30, feature_width=0.5)).eval()
    batch = sound("wav2vec2_bert", LENGTHS)
    with torch.no_grad():
        plain, _ = module(batch)
        again, _ = module(batch)
        torch.manual_seed(5)
        masked, _ = module(batch, augment=True)
        torch.manual_seed(5)
        same, _ = module(batch, augment=True)
        other, _ = module(batch, augment=True)
    assert torch.equal(plain, again)
    assert torch.equal(masked, same)
    assert not torch.allclose(masked, plain)
    assert not torch.equal(masked, other)
    calls = []
    module.frames = lambda input, *, augment=False: calls.append(augment) or module.backbone(input)  # type: ignore
    data = loader([Batch(batch, TARGET, torch.arange(3))])
    quiet_trainer(max_epochs=1).fit(module, data, data)
    assert calls == [True, False]


def test_only_blanks_for_several_validations_is_said_once_with_what_helps(recwarn: pytest.WarningsRecorder) -> None:
    module = toy(optimizer=lambda values: torch.optim.SGD(values, lr=0.0))
    with torch.no_grad():
        module.head[0].bias[VOCABULARY.blank_id] = 50.0
    batches = [mel_batch()]
    trainer = quiet_trainer(max_epochs=5)
    trainer.fit(module, loader(batches), loader(batches))
    assert float(trainer.callback_metrics["val_blank_share"]) == 1.0
    assert float(trainer.callback_metrics["val_wer"]) == 1.0
    said = [str(item.message) for item in recwarn if "Nothing but blanks" in str(item.message)]
    assert len(said) == 1
    assert "for 3 validations" in said[0]
    assert "unfreeze_at_epoch" in said[0]
    heard = module.eval().predict_step(batches[0], 0)
    assert {(item.text, item.problem, item.confidence) for item in heard} == {("", "only blanks", None)}


def test_pieces_of_a_long_record_say_which_they_are_and_where_they_begin() -> None:
    module = toy()
    module.schema = replace(SCHEMA, preprocessing={**PREPROCESSING, "chunk_seconds": 10.0, "overlap_seconds": 2.0})
    batch = mel_batch(["ab", "cad"], labelled=False)
    pieces = batch._replace(index=torch.tensor([[3, 0, 2], [3, 1, 2]]))
    heard = module.eval().predict_step(pieces, 0)
    assert [(item.index, item.piece, item.num_pieces, item.start) for item in heard] == [(3, 0, 2, 0.0), (3, 1, 2, 8.0)]
    for item, text in zip(heard, ("ab", "cad"), strict=True):
        assert item.seconds == pytest.approx(0.16 * len(text), abs=0.03)
        assert len(item.words) == len(item.text.split())
        assert all(0 <= begin < end <= item.seconds for _, begin, end in item.words)


def test_a_test_keeps_the_transcripts_of_all_batches() -> None:
    module = toy()
    batches = [mel_batch(TEXTS[:2]), mel_batch(TEXTS[2:4], labelled=False, first=2)]
    for _ in range(2):
        quiet_trainer().test(module, loader(batches), verbose=False)
        assert [item.index for item in module.test_outputs] == [0, 1, 2, 3]


def test_a_checkpoint_is_enough_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    save_ctc(folder, "wav2vec2_layer")
    module = loaded(folder, spec_augment=SpecAugment(time_masks=1), head_dropout=0.1)
    batch = Batch(sound("wav2vec2_layer", LENGTHS), TARGET, torch.arange(3))
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(module, loader([batch]))
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    shutil.rmtree(folder)
    restored = TransferModule.from_checkpoint(path)
    assert type(restored) is CTCModule
    assert restored.schema == module.schema
    assert restored.card == module.card
    assert restored.vocabulary == PRETRAINED
    assert restored.spec_augment == SpecAugment(time_masks=1)
    assert restored.predict_step(batch, 0) == module.eval().predict_step(batch, 0)
    frozen = {name for name, value in restored.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, value in module.named_parameters() if not value.requires_grad}


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    module = toy()
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(module, loader([mel_batch()]))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    other = CTCModule("toy", weights="random", card=CARD)
    other.use_schema(schema_of(CTCVocabulary.from_texts(["xyz"])))
    other.configure_model()
    with pytest.raises(CheckpointError, match=r"transcription with <pad>, \|, x, y, z"):
        other.on_load_checkpoint(torch.load(tmp_path / "model.ckpt", weights_only=True))


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    batches = [mel_batch(TEXTS[:3]), mel_batch(TEXTS[3:])]

    def fit(folder: Path, resume: Path | None = None, max_epochs: int = 4) -> CTCModule:
        module = toy(head_dropout=0.2, spec_augment=SpecAugment())
        keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        schedule = BackboneFreezeUnfreeze("gradual", unfreeze_at_epoch=1, verbose=False)
        trainer = quiet_trainer(
            max_epochs=max_epochs, enable_checkpointing=True, callbacks=[keep, schedule, ExactResume()]
        )
        torch.manual_seed(7 if resume is None else 99)
        trainer.fit(module, loader(batches), loader(batches), ckpt_path=resume, weights_only=True)
        return module

    whole = fit(tmp_path / "whole")
    resumed = fit(tmp_path / "resumed", tmp_path / "whole" / "epoch=1.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_adapters_train_alone_and_are_restored(tmp_path: Path) -> None:
    save_ctc(tmp_path / "a", "wav2vec2_bert")
    module = loaded(tmp_path / "a", lora=LoraOptions(rank=2))
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    batch = Batch(sound("wav2vec2_bert", LENGTHS), TARGET, torch.arange(3))
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0)
    trainer.fit(module, loader([batch]))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    restored = CTCModule.from_checkpoint(tmp_path / "model.ckpt")
    assert restored.predict_step(batch, 0) == module.eval().predict_step(batch, 0)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (Schema(task="multiclass", classes=("a", "b")), "task `multiclass`"),
        (Schema(task="transcription", classes=("x", "y")), "`preprocessing\\['vocabulary'\\]` is missing"),
    ],
)
def test_a_schema_that_does_not_fit_is_told(schema: Schema, message: str) -> None:
    module = CTCModule("toy", weights="random", card=CARD)
    module.use_schema(schema)
    with pytest.raises(MisconfigurationException, match=message):
        module.configure_model()


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'shut'"):
        CTCModule("toy", weights="random", card=CARD, feature_encoder="shut")  # type: ignore[arg-type]
    module = CTCModule("toy", weights="random", card=CARD)
    with pytest.raises(MisconfigurationException, match="no vocabulary yet"):
        module.reference_texts(TARGET)
    module = toy()
    with pytest.raises(MisconfigurationException, match="has no transcripts"):
        module.training_step(mel_batch(labelled=False), 0)


@pytest.mark.parametrize("family", ["wav2vec2_group", "wav2vec2_bert"])
def test_the_same_backbone_classifies(family: str, tmp_path: Path) -> None:
    save_ctc(tmp_path, family)
    module = ClassificationModule(str(tmp_path))
    module.use_schema(Schema(task="multiclass", classes=("calm", "angry")))
    inputs = sound(family, [400, 250, 61])
    batch = Batch(inputs, torch.tensor([0, 1, 0]), torch.arange(3))
    callbacks = [BackboneFreezeUnfreeze("gradual", verbose=False), DiscriminativeLR()]
    quiet_trainer(max_epochs=2, callbacks=callbacks).fit(module, loader([batch]), loader([batch]))
    output = module.eval().predict_step(batch, 0)
    assert output.logits.shape == (3, 2)
    with torch.no_grad():
        alone = module({key: value[2:, :61] for key, value in inputs.items()})
    if family == "wav2vec2_bert":
        torch.testing.assert_close(output.logits[2:], alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(MisconfigurationException, match="`ClassificationModule` sees their mean alone"):
        ClassificationModule(str(tmp_path), keep_source_head=True)


def test_a_kept_source_head_maps_frames_and_is_restored(tmp_path: Path) -> None:
    oracle = save_ctc(tmp_path / "a", "wavlm")
    module = loaded(tmp_path / "a", keep_source_head=True)
    torch.testing.assert_close(module.source_head.weight, oracle.lm_head.weight)
    assert not module.source_head.weight.requires_grad
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "model.ckpt")
    restored = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    torch.testing.assert_close(restored.source_head.weight, oracle.lm_head.weight)


def test_features_are_the_mean_of_real_frames() -> None:
    module = toy().eval()
    batch = mel_batch()
    with torch.no_grad():
        hidden, lengths = module.frames(batch.input)
        pooled = module.features(batch.input)
    torch.testing.assert_close(pooled[0], hidden[0, : lengths[0]].mean(0))
