"""What the shared command line needs to know of this recipe; imports nothing heavy."""

from lightning_transfer.cli import Recipe

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="nlp",
    package="recipes.nlp",
    module="lightning_transfer.modules:ClassificationModule",
    data="recipes.nlp.data:TextDataModule",
    heads={
        "few_shot": "lightning_transfer.modules:FewShotModule",
        "zero_shot": "lightning_transfer.modules:ZeroShotModule",
    },
    description="Ticket routing: adapt a pretrained text encoder to your queues, and know when not to route.",
    routes=True,
)
