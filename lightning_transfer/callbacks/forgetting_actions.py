"""What `ForgettingMonitor` does when an alarm goes off: stop, roll back, refreeze, or call the user's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_transfer.callbacks.backbone_freeze_unfreeze import BackboneFreezeUnfreeze
from lightning_transfer.callbacks.forgetting_report import ForgettingReport
from lightning_transfer.callbacks.forgetting_rollback import Rollback

__all__ = ["Action", "CallAction", "RefreezeAction", "RollbackAction", "StopAction"]


class Action:
    """Nothing beyond the warning, which is ``"log"``. All ranks call every method alike.

    Attributes:
        changes_weights: Whether the weights after an alarm are others than those that were checked.
    """

    changes_weights = False

    def setup(self, trainer: Trainer) -> None:
        """Refuse what cannot work, before anything is trained."""

    def start(self, trainer: Trainer, module: LightningModule, token: str, pending: bool) -> None:
        """Get ready, when the weights are on their device and restored, but not trained.

        Args:
            trainer: Of the fit.
            module: Of the fit.
            token: Tells the files of several runs apart.
            pending: Whether the last checks of a resumed run were past a tolerance.
        """

    def alarm(self, trainer: Trainer, module: LightningModule, report: ForgettingReport, final: bool) -> bool:
        """Act; say whether the checks so far no longer count, so that the next alarm needs new ones.

        Args:
            trainer: Of the fit.
            module: Of the fit.
            report: Of the check with the alarm.
            final: Whether training is over.
        """
        return False

    def good(self, trainer: Trainer, module: LightningModule) -> None:
        """Take note of a check in which nothing was past its tolerance."""

    def finish(self, trainer: Trainer, pending: bool) -> None:
        """Clean up when training is over."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values that a checkpoint must remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint, before `start`."""


class StopAction(Action):
    """End the fit."""

    def alarm(self, trainer: Trainer, module: LightningModule, report: ForgettingReport, final: bool) -> bool:
        """Ask the trainer to stop; the checks go on counting."""
        trainer.should_stop = True
        return False


class CallAction(Action):
    """Call a function of the user's.

    Args:
        function: ``callable(trainer, module, report)``.
    """

    def __init__(self, function: Callable[[Any, Any, Any], Any]) -> None:
        self.function = function

    def alarm(self, trainer: Trainer, module: LightningModule, report: ForgettingReport, final: bool) -> bool:
        """Call it; the checks go on counting."""
        self.function(trainer, module, report)
        return False


class RollbackAction(Action):
    """Put the weights and optimizer state of the last good check back; see `Rollback`."""

    changes_weights = True

    def __init__(self) -> None:
        self._state: dict[str, Any] = {"snapshot": None, "rolled_back": False}
        self._rollback: Rollback | None = None

    def start(self, trainer: Trainer, module: LightningModule, token: str, pending: bool) -> None:
        """Find the file of a resumed run, or keep the weights as they are."""
        self._rollback = Rollback(trainer, self._state["snapshot"], token, self._state["rolled_back"])
        self._rollback.prepare(trainer, module, pending)

    def alarm(self, trainer: Trainer, module: LightningModule, report: ForgettingReport, final: bool) -> bool:
        """Roll back."""
        if self._rollback is not None:
            self._rollback.roll_back(trainer, module)
        return True

    def good(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the weights and optimizer state of this check."""
        if self._rollback is not None:
            self._rollback.keep(trainer, module)

    def finish(self, trainer: Trainer, pending: bool) -> None:
        """Remove the file, unless a resumed run would need it."""
        if self._rollback is not None:
            self._rollback.finish(trainer, pending)

    def state_dict(self) -> dict[str, Any]:
        """Return the name of the file, and whether the run stands where it was rolled back to."""
        if self._rollback is None:
            return dict(self._state)
        return {"snapshot": self._rollback.name, "rolled_back": self._rollback.repeated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what `start` looks for."""
        self._state = {key: state.get(key, value) for key, value in self._state.items()}


class RefreezeAction(Action):
    """Close the deepest open layer group at each alarm.

    It holds what is left of the old task, and puts nothing back: what was lost stays lost. Once the whole backbone is
    closed, nothing more can be lost, so the head goes on training and no more is said.

    Args:
        backbone: The monitor's own argument; among several `BackboneFreezeUnfreeze` it names the one.
    """

    def __init__(self, backbone: str | Sequence[str] | None) -> None:
        self.backbone = backbone

    def setup(self, trainer: Trainer) -> None:
        """Refuse a trainer without the callback that closes groups."""
        self._freezing(trainer)

    def alarm(self, trainer: Trainer, module: LightningModule, report: ForgettingReport, final: bool) -> bool:
        """Close one group from the next optimizer step on; after the last step there is nothing to hold."""
        if final:
            return False
        freezing = self._freezing(trainer)
        names = freezing.open_groups
        if not names:
            # The checks go on counting, so this alarm does not come again unless a check is good in between.
            rank_zero_warn(
                "ForgettingMonitor has no layer group left to close: the whole backbone is frozen, and the head alone "
                "goes on training."
            )
            return False
        freezing.limit_open_groups(len(names) - 1)
        rank_zero_info(
            f"ForgettingMonitor: closes {names[0]} for the rest of the run; {len(names) - 1} groups stay open."
        )
        return True

    def _freezing(self, trainer: Trainer) -> BackboneFreezeUnfreeze:
        """Return the callback that freezes the watched backbone.

        Raises:
            MisconfigurationException: If there is none, or several and none of them has the monitor's ``backbone``.
        """
        found = [item for item in trainer.callbacks if isinstance(item, BackboneFreezeUnfreeze)]  # type: ignore[attr-defined]
        if not found:
            raise MisconfigurationException(
                "on_alarm='refreeze' closes layer groups by `BackboneFreezeUnfreeze`, and the trainer has none. Add "
                "one to `callbacks`: BackboneFreezeUnfreeze('full') opens all groups from the start."
            )
        own = found if len(found) == 1 else [item for item in found if item.backbone == self.backbone]
        if len(own) != 1:
            known = ", ".join(f"backbone={item.backbone!r}" for item in found)
            raise MisconfigurationException(
                f"The trainer has {len(found)} `BackboneFreezeUnfreeze` ({known}), and ForgettingMonitor has "
                f"backbone={self.backbone!r}. Give it the same `backbone` as one of them."
            )
        return own[0]
