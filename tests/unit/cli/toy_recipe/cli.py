"""What the shared command line needs to know of the toy recipe."""

from lightning_transfer.cli import Recipe

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="toy",
    package="toy_recipe",
    module="toy_recipe.module:ToyModule",
    data="toy_recipe.data:ToyData",
    description="Tell two clouds of points apart.",
)
