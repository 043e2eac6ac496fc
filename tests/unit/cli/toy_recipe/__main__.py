"""Entry point of ``python -m toy_recipe``."""

import sys

from lightning_transfer.cli import main
from toy_recipe.cli import RECIPE

if __name__ == "__main__":
    sys.exit(main(RECIPE))
