"""A card of a network that needs no network: what data ask of a backbone; and the verbs of the recipe."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_transfer.data import CTCVocabulary
from lightning_transfer.types import BackboneCard
from recipes.speech.cli import RECIPE
from recipes.speech.data import SpeechDataModule
from tests.recipes.verbs import Run, runner

EXTRACTOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000, "do_normalize": True}
LETTERS = CTCVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz'"])


@pytest.fixture(scope="session")
def card() -> BackboneCard:
    pytest.importorskip("transformers")
    config = {"conv_kernel": (400,), "conv_stride": (320,)}
    processor = {"feature_extractor": EXTRACTOR, "vocabulary": LETTERS.to_dict()}
    return BackboneCard("tiny", "tiny", modality="audio", architecture_config=config, processor=processor)


@pytest.fixture
def bare_card(card: BackboneCard) -> BackboneCard:
    """The same without a vocabulary, as of a network that was pretrained without transcripts."""
    return replace(card, processor={"feature_extractor": EXTRACTOR})


@pytest.fixture
def module(card: BackboneCard) -> Callable[..., SpeechDataModule]:
    """Make the recipe's data of a list, with the card."""

    def make(file: Path, **options: Any) -> SpeechDataModule:
        data = SpeechDataModule(str(file), **{"batch_size": 4, **options})
        data.use_card(card)
        return data

    return make


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb in an empty folder; return its exit code and all that it printed."""
    return runner(RECIPE, tmp_path, monkeypatch, capsys)
