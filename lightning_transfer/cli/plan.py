"""The verb ``plan``: say what a fit would train, when, how fast and with how much memory, without a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.cli.trainer_verbs import start, trainer_inputs

__all__ = ["format_plan", "plan"]


def plan(recipe: Recipe, arguments: Arguments) -> int:
    """Set a fit up, print its plan and write ``plan.json``; no step is taken and no checkpoint written."""
    with start(recipe, arguments) as cli:
        # Set up by the Trainer itself, so that the plan is that of the fit; the run folder's callback stops it.
        cli.trainer.fit(cli.model, **trainer_inputs(cli, cli.trainer.fit))
        if cli.trainer.is_global_zero:
            print(format_plan(cli.run_callback.plan))
    return 0


def format_plan(facts: Mapping[str, Any]) -> str:
    """Return the plan as text.

    Example:
        >>> stage = {"epoch": 0, "step": None, "opened": [], "open_groups": [], "trainable_parameters": 8,
        ...          "share": 0.25, "reached": True}
        >>> print(format_plan({"stages": [stage]}))
        What trains when
          begins   opens      trains     share
          epoch 0  head only  8          25.0%
    """
    sections = (_backbone, _data, _groups, _notes, _stages, _rates, _recommendation)
    return "\n\n".join(text for text in (section(facts) for section in sections) if text)


def _backbone(facts: Mapping[str, Any]) -> str:
    card = facts.get("backbone") or {}
    if not card:
        return ""
    lines = [f"Backbone {card['name']} ({card['num_parameters']:,} parameters, {card['num_features']} features)"]
    lines.append(f"  licence      {card['licence']}")
    lines.append(f"  pretraining  {card['pretraining']}")
    if card["batchnorm"] == "folded":
        lines.append("  batchnorm    folded: stays in eval mode while fine-tuning")
    return "\n".join(lines)


def _data(facts: Mapping[str, Any]) -> str:
    counts: Mapping[str, Mapping[str, int]] = facts.get("data") or {}
    if not counts:
        return ""
    classes = list(dict.fromkeys(name for split in counts.values() for name in split))
    if classes == ["utterances"]:  # of speech, in which there are no classes to count
        classes = []
    rows = [("split", "records", *classes)]
    rows += [
        (split, str(sum(found.values())), *(str(found.get(name, 0)) for name in classes))
        for split, found in counts.items()
    ]
    return "Data\n" + _aligned(rows)


def _groups(facts: Mapping[str, Any]) -> str:
    groups = facts.get("groups") or []
    if not groups:
        return f"Groups: not found. {facts['reason']}" if facts.get("reason") else ""
    rows = [("depth", "group", "parameters")]
    rows += [(str(group["depth"]), group["name"], f"{group['parameters']:,}") for group in groups]
    lines = [f"Groups (by {facts['evidence']})", _aligned(rows)]
    return "\n".join([*lines, *(f"  Warning: {text}" for text in facts["warnings"])])


def _notes(facts: Mapping[str, Any]) -> str:
    notes = facts.get("notes") or []
    return "\n".join(["How it learns", *(f"  {text}" for text in notes)]) if notes else ""


def _stages(facts: Mapping[str, Any]) -> str:
    stages = facts.get("stages") or []
    if not stages:
        return ""
    memory = any(stage.get("memory") for stage in stages)
    head = ("begins", "opens", "trains", "share", *(("memory",) if memory else ()))
    rows = [head]
    for stage in stages:
        begins = next((f"{unit} {stage[unit]}" for unit in ("epoch", "step") if stage[unit] is not None), "on stall")
        opened = ", ".join(stage["opened"]) or ("head only" if not stage["open_groups"] else "-")
        opened += "" if stage["reached"] else " (never: the run ends before)"
        row = (begins, opened, f"{stage['trainable_parameters']:,}", f"{100 * stage['share']:.1f}%")
        rows.append((*row, *((_memory(stage),) if memory else ())))
    note = (
        "\n  memory: weights, gradients, optimizer and saved activations of one batch; kernels need some on top"
        if memory
        else ""
    )
    reason = next((stage["memory_reason"] for stage in stages if stage.get("memory_reason")), None)
    note += f"\n  memory: n/a ({reason})" if reason else ""
    return "What trains when\n" + _aligned(rows) + note


def _memory(stage: Mapping[str, Any]) -> str:
    found = stage.get("memory")
    return f"{found['total'] / 2**20:,.0f} MB" if found else "n/a"


def _rates(facts: Mapping[str, Any]) -> str:
    rates = facts.get("learning_rates") or []
    if not rates:
        return ""
    rows = [("optimizer", "group", "learning rate", "weight decay", "parameters")]
    rows += [
        (rate["optimizer"], rate["name"], f"{rate['lr']:.3g}", f"{rate['weight_decay']:.3g}", f"{rate['parameters']:,}")
        for rate in rates
    ]
    return "Learning rates at the first step\n" + _aligned(rows)


def _recommendation(facts: Mapping[str, Any]) -> str:
    values = facts.get("recommendation")
    if not values:
        return ""
    from lightning_transfer.evaluation import Recommendation, format_recommendation

    return format_recommendation(Recommendation.from_dict(values), facts.get("configured"))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(9 if place in (1, 2) else 0, *(len(row[place]) for row in rows)) for place in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
