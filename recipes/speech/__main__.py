"""Entry point of ``python -m recipes.speech``."""

import sys

from lightning_transfer.cli import main
from recipes.speech.cli import RECIPE

if __name__ == "__main__":
    sys.exit(main(RECIPE))
