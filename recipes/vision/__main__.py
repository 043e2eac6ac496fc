"""Entry point of ``python -m recipes.vision``."""

import sys

from lightning_transfer.cli import main
from recipes.vision.cli import RECIPE

if __name__ == "__main__":
    sys.exit(main(RECIPE))
