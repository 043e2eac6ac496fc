"""Prompts, labels and texts against transformers' own Whisper tokenizer."""

from dataclasses import replace
from pathlib import Path

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.backbones import load_seq2seq
from lightning_transfer.modules.whisper_tokens import WhisperTokens
from lightning_transfer.types import BackboneCard
from tests.unit.backbones.speech_toys import save_whisper

transformers = pytest.importorskip("transformers")

TEXTS = ["call me back", "one two three"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BackboneCard]:
    folder = tmp_path_factory.mktemp("whisper")
    save_whisper(folder, TEXTS)
    return folder, load_seq2seq(str(folder))[1]


@pytest.mark.parametrize(
    ("language", "task"), [("en", "transcribe"), ("german", "translate"), ("<|de|>", "transcribe")]
)
def test_prompts_and_labels_are_transformers_own(saved, language: str, task: str) -> None:
    folder, card = saved
    tokens = WhisperTokens(card, language, task)  # type: ignore[arg-type]
    code = "en" if language == "en" else "de"
    oracle = transformers.WhisperTokenizer.from_pretrained(folder, language=code, task=task)
    for text in (*TEXTS, "zebra, ünknown!", ""):
        whole = oracle(text).input_ids
        given, wanted = tokens.labels(oracle(text, add_special_tokens=False).input_ids)
        assert [*given, wanted[-1]] == whole
        assert [given[0], *wanted] == whole
        assert tokens.decode(wanted) == oracle.decode(wanted, skip_special_tokens=True).strip() == text
    assert tokens.languages == ("de", "en", "zh")


def test_a_text_ends_at_the_first_end_and_has_no_special_tokens(saved) -> None:
    folder, card = saved
    tokens = WhisperTokens(card, "en")
    oracle = transformers.WhisperTokenizer.from_pretrained(folder)
    call, back = (oracle(text, add_special_tokens=False).input_ids for text in ("call", " back"))
    special = oracle.convert_tokens_to_ids(["<|nospeech|>", "<|notimestamps|>"])
    time = max(special) + 1  # the times stand behind all other tokens
    assert tokens.decode([*call, *special, time, *back, tokens.end, *call]) == "call back"
    assert tokens.decode([-100]) == ""
    assert [tokens.is_text(token) for token in (call[0], special[0], time, tokens.end, -100)] == [True, *[False] * 4]


def test_a_model_of_english_alone_has_no_language_in_its_prompt(tmp_path: Path) -> None:
    save_whisper(tmp_path, TEXTS, multilingual=False)
    card = load_seq2seq(str(tmp_path))[1]
    oracle = transformers.WhisperTokenizer.from_pretrained(tmp_path)
    expected = tuple(oracle.convert_tokens_to_ids(["<|startoftranscript|>", "<|notimestamps|>"]))
    assert WhisperTokens(card, None).prompt == WhisperTokens(card, "en").prompt == expected
    for language, task in (("de", "transcribe"), (None, "translate")):
        with pytest.raises(MisconfigurationException, match=f"`language: {language}`, `task: {task}` asks for more"):
            WhisperTokens(card, language, task)  # type: ignore[arg-type]


def test_without_generation_settings_the_vocabularys_size_tells(saved) -> None:
    _, card = saved
    processor = {key: value for key, value in card.processor.items() if key != "generation"}
    small = WhisperTokens(replace(card, processor=processor), None)
    assert not small.is_multilingual
    config = {**card.architecture_config, "vocab_size": 51865}
    large = WhisperTokens(replace(card, processor=processor, architecture_config=config), "en")
    assert large.is_multilingual
    assert large.languages == ("de", "en", "zh")
    assert large.settings == config


def test_a_card_without_tokenizer_says_what_is_missing(saved) -> None:
    _, card = saved
    with pytest.raises(MisconfigurationException, match="holds no tokenizer"):
        WhisperTokens(replace(card, processor={}), "en")
