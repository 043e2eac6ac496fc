"""Entry point of ``python -m recipes.medical``."""

import sys

from lightning_transfer.cli import main
from recipes.medical.cli import RECIPE

if __name__ == "__main__":
    sys.exit(main(RECIPE))
