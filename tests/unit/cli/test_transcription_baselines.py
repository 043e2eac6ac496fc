"""The rows beside a recogniser; where one cannot be run, the reason stands in its place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_transfer.cli import main, transcription_baselines
from lightning_transfer.cli.transcription_baselines import piece_starts
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import BackboneCard, Record, Schema
from tests.unit.cli.conftest import Done, runner

pytest.importorskip("jiwer")

Fitted = Callable[..., Path]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    from toy_recipe.speech import RECIPE

    def fit(*words: str) -> Path:
        root = tmp_path_factory.mktemp("fit")
        options = (
            "--trainer.max_epochs",
            "1",
            "--trainer.accelerator",
            "cpu",
            "--trainer.enable_progress_bar",
            "false",
        )
        assert main(RECIPE, ["fit", *options, "--trainer.default_root_dir", str(root), *words]) == 0
        [run] = (root / "toyspeech").iterdir()
        return run

    return fit


@pytest.fixture(scope="module")
def plain(fitted: Fitted) -> Path:
    return fitted()


def judged(run: Path, place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Done, dict[str, Any]]:
    from toy_recipe.speech import RECIPE

    copy = Path(shutil.copytree(run, place / "run"))
    done = runner(RECIPE, capsys)("test", copy, *words)
    return done, json.loads((copy / "test" / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--model.own_vocabulary", "false"), "`toy/ears` has no vocabulary of its own"),
        (("--model.weights", "random"), "the network began with random weights"),
    ],
)
def test_a_network_that_cannot_write_has_a_reason_in_place_of_numbers(
    fitted: Fitted, words: tuple[str, str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match=f"The row `pretrained` has no numbers.*{reason}"):
        done, metrics = judged(fitted(*words), tmp_path, capsys)
    assert done.code == 0, done.err
    assert reason in metrics["wer_of_pretrained"]["reason"]
    assert metrics["wer_of_pretrained"]["value"] is None
    assert "wer_minus_pretrained" not in metrics
    assert reason in done.out


def test_with_a_lexicon_each_recogniser_is_judged_without_it_too(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, without = judged(plain, tmp_path / "without", capsys)
    done, metrics = judged(plain, tmp_path / "with", capsys, "--model.decoding", "zzz")
    assert done.code == 0, done.err
    assert metrics["wer"]["value"] == metrics["wer_of_pretrained"]["value"] == 1.0
    assert metrics["wer_of_greedy"]["value"] == without["wer"]["value"]
    assert metrics["wer_of_pretrained_greedy"]["value"] == without["wer_of_pretrained"]["value"]
    assert metrics["cer_of_greedy"]["value"] != metrics["cer"]["value"]
    assert not any("greedy" in name for name in without)


def test_scratch_that_cannot_be_trained_loses_no_result(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="`ToyRecogniser` is no TransferModule"):
        done, metrics = judged(plain, tmp_path, capsys, "--evaluation.baselines", "[pretrained, scratch]")
    assert done.code == 0, done.err
    assert metrics["wer_of_pretrained"]["value"] == 1.0
    assert "no TransferModule" in metrics["wer_of_scratch"]["reason"]


def test_an_interrupt_keeps_the_results(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        assert (tmp_path / "run" / "test" / "predictions.jsonl").is_file(), "the transcripts had to be safe by now"
        raise KeyboardInterrupt

    monkeypatch.setattr(transcription_baselines, "train_scratch", interrupted)
    done, metrics = judged(plain, tmp_path, capsys, "--evaluation.baselines", "[scratch, pretrained]")
    assert done.code == 130
    assert metrics["wer_of_scratch"]["reason"] == "its training was interrupted"
    assert metrics["wer"]["value"] is not None


def test_the_network_before_adapting_writes_in_its_own_alphabet() -> None:
    own = CTCVocabulary(("[PAD]", " ", "A"), blank="[PAD]", word_delimiter=" ")
    twin = SimpleNamespace(card=BackboneCard("b", "b", processor={"vocabulary": own.to_dict()}))
    new = CTCVocabulary.from_texts(["ä b"])
    schema = Schema("transcription", new.tokens, preprocessing={"kind": "audio", "vocabulary": new.to_dict()})
    found = transcription_baselines._own_schema(twin, schema)
    assert CTCVocabulary.from_schema(found) == own
    assert found.preprocessing["kind"] == "audio"
    whisper = Schema("transcription", ())
    assert transcription_baselines._own_schema(twin, whisper) is whisper


def test_pieces_begin_where_the_data_cut_them() -> None:
    record = Record("a", AudioSegment("a.wav", start=10.0))
    cut = [Record("a", AudioSegment("a.wav", start=start, duration=4.0)) for start in (10.0, 13.0)]
    data = SimpleNamespace(pieces=lambda row, learn: cut if row is record and not learn else None)
    heard = [Transcript(1, "x", None, 4.0, "", number, 2) for number in (0, 1)] + [Transcript(0, "y", None, 1.0)]
    assert piece_starts(data, [Record("b", AudioSegment("b.wav")), record], heard) == {1: [0.0, 3.0]}
