"""What the shared command line needs to know of this recipe; imports nothing heavy."""

from lightning_transfer.cli import Recipe

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="speech",
    package="recipes.speech",
    module="lightning_transfer.modules:CTCModule",
    data="recipes.speech.data:SpeechDataModule",
    heads={
        "seq2seq": "lightning_transfer.modules:Seq2SeqModule",
        "classification": "lightning_transfer.modules:ClassificationModule",
    },
    head_kinds={"classification": "classification"},
    description="Speech recognition: adapt a pretrained recogniser to your callers, and see what it forgets.",
    kind="transcription",
)
