"""The command line that all recipes share: verbs, run folders, error messages.

Importing this package imports neither torch nor Lightning, so that help and lists answer at once.
"""

from lightning_transfer.cli.app import main
from lightning_transfer.cli.recipe import Recipe

__all__ = ["Recipe", "main"]
