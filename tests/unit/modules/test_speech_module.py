"""What all modules of speech share, by a toy that writes what its input spells."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.modules.speech_module import SpeechModule, labelled, places
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Batch, Schema
from tests.unit.modules.speech_toys import CARD, SCHEMA, loader, mel_batch, quiet_trainer


class Toy(SpeechModule):
    """Hears ``heard`` whatever is said, and reads every reference as ``Said.``."""

    form = "frames"
    heard = "said"

    def transcribe(self, batch: Batch) -> list[Transcript]:
        rows = zip(places(batch), self.sound_seconds(batch), strict=True)
        return [Transcript(place[0], self.heard, None, seconds, piece=place[1]) for place, seconds in rows]

    def reference_texts(self, target: torch.Tensor) -> list[str]:
        return ["Said."] * len(target)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update_errors(batch, self.transcribe(batch))


def toy(schema: Schema = SCHEMA) -> Toy:
    module = Toy("toy", weights="random", card=CARD)
    module.use_schema(schema)
    module.configure_model()
    return module


@pytest.mark.parametrize(("normaliser", "wer"), [("basic", 0.0), ("none", 1.0), (None, 1.0)])
def test_the_schemas_normaliser_decides_what_is_an_error(normaliser: str | None, wer: float) -> None:
    values = {} if normaliser is None else {"scoring_normaliser": normaliser}
    module = toy(replace(SCHEMA, preprocessing={**SCHEMA.preprocessing, **values}))
    if normaliser is None:
        preprocessing = {key: value for key, value in SCHEMA.preprocessing.items() if key != "scoring_normaliser"}
        module.schema = replace(SCHEMA, preprocessing=preprocessing)
    (logged,) = quiet_trainer().validate(module, loader([mel_batch()]), verbose=False)
    assert logged["val_wer"] == wer


def test_errors_of_one_validation_do_not_count_in_the_next() -> None:
    module = toy()
    module.heard = "something else entirely"
    quiet_trainer().validate(module, loader([mel_batch()]), verbose=False)
    module.heard = "said"
    (logged,) = quiet_trainer().validate(module, loader([mel_batch()]), verbose=False)
    assert (logged["val_wer"], logged["val_cer"]) == (0.0, 0.0)


def test_seconds_come_from_the_mask_or_from_all_of_the_input() -> None:
    module = toy()
    batch = mel_batch(["ab", "bad cab"])
    masked = module.sound_seconds(batch)
    assert masked == pytest.approx([0.32, 7 * 0.16], abs=0.03)
    bare = batch._replace(input={"input_features": batch.input["input_features"]})
    assert module.sound_seconds(bare) == pytest.approx([masked[1]] * 2)


def test_pieces_begin_where_the_schema_says() -> None:
    module = toy(replace(SCHEMA, preprocessing={**SCHEMA.preprocessing, "chunk_seconds": 30.0, "overlap_seconds": 4.0}))
    assert [module.piece_start(piece) for piece in (0, 1, 2)] == [0.0, 26.0, 52.0]
    assert toy().piece_start(3) == 0.0


def test_a_second_test_starts_anew(tmp_path: Path) -> None:
    module = toy()
    for _ in range(2):
        quiet_trainer().test(module, loader([mel_batch(["ab"]), mel_batch(["cad"], first=1)]), verbose=False)
        assert [item.index for item in module.test_outputs] == [0, 1]


def test_images_are_refused() -> None:
    with pytest.raises(MisconfigurationException, match="recognises speech, and `timm/test_resnet` takes image"):
        type("Plain", (Toy,), {"form": "pooled"})("timm/test_resnet", weights="random")


def test_another_task_is_refused_before_and_after_the_head() -> None:
    module = Toy("toy", weights="random", card=CARD)
    module.use_schema(Schema(task="multiclass", classes=("a", "b")))
    with pytest.raises(MisconfigurationException, match="the data are of the task `multiclass`"):
        module.configure_model()


def test_a_batch_without_transcripts_is_told() -> None:
    with pytest.raises(MisconfigurationException, match="has no transcripts"):
        labelled(mel_batch(labelled=False))
    module = SpeechModule.transcribe, SpeechModule.reference_texts
    for method in module:
        with pytest.raises(NotImplementedError):
            method(toy(), mel_batch())  # type: ignore[arg-type]
