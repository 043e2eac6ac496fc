"""``main``: find the verb, answer at once what needs no torch, and turn every error into a message."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from lightning_transfer import __version__
from lightning_transfer.cli.arguments import check_config, split_arguments
from lightning_transfer.cli.errors import UsageError, report
from lightning_transfer.cli.quiet import drop_noise
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.cli.verbs import VERBS
from lightning_transfer.errors import closest

__all__ = ["main"]


def main(recipe: Recipe, args: Sequence[str] | None = None) -> int:
    """Run one command of a recipe.

    Nothing is printed but results and messages; the trace of an error is shown with ``--debug`` only.

    Args:
        recipe: The recipe whose command line this is.
        args: Words behind ``python -m recipes.<name>``; None takes them from ``sys.argv``.

    Returns:
        Exit code: 0 done, 1 failed, 2 for what the user can mend, 130 interrupted.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        return _dispatch(recipe, words)
    except SystemExit as stop:
        # argparse after a help text (0); Lightning after Ctrl-C (1).
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except Exception as error:  # the boundary to the user: everything becomes a message and an exit code
        return report(error, recipe, debug="--debug" in words)


def _dispatch(recipe: Recipe, words: Sequence[str]) -> int:
    first = next((word for word in words if word != "--debug"), None)
    if first is None:
        print(_usage(recipe))
        return 0
    if first in ("-h", "--help", "help"):
        print(_usage(recipe))
        return 0
    if first == "--version":
        print(f"lightning-transfer {__version__}")
        return 0
    if first.startswith("-"):
        raise UsageError(f"Expected a verb first, got `{first}`. Verbs: {', '.join(VERBS)}.")
    if first not in VERBS:
        raise UsageError(f"No verb `{first}`.{closest(first, VERBS)} Verbs: {', '.join(VERBS)}.")
    verb = VERBS[first]
    arguments = split_arguments(words[list(words).index(first) :])
    if not verb.needs_torch and arguments.wants_help:
        print(f"usage: {recipe.command} {verb.name} {verb.usage}\n\n{verb.help}")
        return 0
    if verb.needs_torch:
        _check_places(recipe, arguments.verb, arguments.places, verb.takes_run)
        for name in arguments.configs:
            check_config(name, recipe)
        drop_noise()
        _show_messages()
    return verb.load()(recipe, arguments)


def _show_messages() -> None:
    """Let the library's messages be seen, such as what of a weights file was kept; the first process speaks for all."""
    logger = logging.getLogger("lightning_transfer")
    if logger.handlers or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)


def _check_places(recipe: Recipe, verb: str, places: Sequence[str], takes_run: bool) -> None:
    if places and not takes_run:
        raise UsageError(
            f"`{verb}` does not take `{places[0]}`. Give a config: `{recipe.command} {verb} --config FILE`; to go on "
            "from an interrupted run add `--ckpt_path RUN/checkpoints/last.ckpt`."
        )
    if len(places) > 1:
        raise UsageError(f"`{verb}` takes one run folder or checkpoint, got {len(places)}: {', '.join(places)}.")


def _usage(recipe: Recipe) -> str:
    width = max(len(name) for name in VERBS)
    lines = [f"usage: {recipe.command} VERB ...", ""]
    if recipe.description:
        lines += [recipe.description, ""]
    lines.append("verbs:")
    lines += [f"  {verb.name:<{width}}  {verb.help}" for verb in VERBS.values()]
    lines += ["", "usage of each verb:"]
    lines += [f"  {recipe.command} {verb.name} {verb.usage}".rstrip() for verb in VERBS.values()]
    lines += [
        "",
        "Several --config files compose, later wins; options on the command line win over all of them.",
        "--baselines A,B is short for --evaluation.baselines '[A, B]'.",
        "`VERB --help` lists the options of a verb. --debug shows the trace of an error. --version shows the version.",
    ]
    return "\n".join(lines)
