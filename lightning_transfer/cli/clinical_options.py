"""The section ``evaluation`` of a config where findings in medical images are told. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_transfer.cli.evaluation_options import EvaluationOptions

__all__ = ["ClinicalOptions"]


def _usual() -> list[float]:
    return [0.9, 0.95]


@dataclass
class ClinicalOptions(EvaluationOptions):
    """How a trained model is calibrated and judged, finding by finding.

    Attributes:
        specificities: Each finding gets a threshold for each of these on the calibration split; ``test`` says the
            sensitivity there. After the fit they are the checkpoint's.
        sensitivities: The same, the other way round.
        prevalence: Share of patients who have a finding where the model is to be used: one number, or one for each
            finding by its name. ``test`` then says predictive values for it; those of the test split hold only where a
            finding is as frequent as there.
        data_licence: Licence of the training data and its terms, for the model card.
        not_for_clinical_use: Say on the model card and the report that the model is for research.
    """

    specificities: list[float] = field(default_factory=_usual)
    sensitivities: list[float] = field(default_factory=_usual)
    prevalence: float | dict[str, float] | None = None
    data_licence: str | None = None
    not_for_clinical_use: bool = True

    def __post_init__(self) -> None:
        """Refuse shares out of range: better before the fit than after it."""
        super().__post_init__()
        for name in ("specificities", "sensitivities"):
            for value in getattr(self, name):
                if not 0.0 < value < 1.0:
                    raise ValueError(f"Expected `{name}` in (0, 1), got {value}. 0.9 and 0.95 are usual.")
        stated = self.prevalence.values() if isinstance(self.prevalence, dict) else [self.prevalence]
        for share in stated:
            if share is not None and not 0.0 < share < 1.0:
                raise ValueError(f"Expected a `prevalence` in (0, 1), got {share}. 0.05 is one in twenty.")
