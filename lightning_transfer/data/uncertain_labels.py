"""What a finding that a report calls possible is taken for while learning; it is never judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lightning_transfer.errors import DataError, closest
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

__all__ = ["POLICIES", "UncertainLabels", "class_of_finding"]

POLICIES = ("ignore", "ones", "zeros", "soft")
_SOFT = 0.5
_DEFAULT = "default"


@dataclass(frozen=True)
class UncertainLabels:
    """The policy of each finding (Irvin et al. 2019, arXiv 1901.07031, section 3).

    Policies hold for the training split alone. In validation, calibration and test an uncertain finding is unknown
    whatever the policy: a score against a guess would be a guess.

    Attributes:
        findings: Names, in the order of the labels.
        policies: One each: ``ignore`` (no loss), ``ones``, ``zeros``, ``soft`` (one half), or a probability as text.

    Example:
        >>> policy = UncertainLabels.make({"edema": "ones", "mass": 0.7}, ["edema", "mass", "cyst"])
        >>> policy.policies
        ('ones', '0.7', 'ignore')
        >>> row = Record("a", None, (None, None, None), "train")
        >>> policy.learn([row], {"a": (0, 1, 2)})[0].label
        (1.0, None, None)
        >>> policy.soft((0, 1, 2))
        {1: 0.7}
    """

    findings: tuple[str, ...]
    policies: tuple[str, ...]

    @classmethod
    def make(cls, option: str | float | Mapping[str, str | float] | None, findings: Sequence[str]) -> UncertainLabels:
        """Read the option: one policy for all, or a mapping of findings to policies with ``default``.

        Raises:
            DataError: If a finding or a policy is unknown.
        """
        given: Mapping[str, str | float] = (
            option if isinstance(option, Mapping) else {_DEFAULT: "ignore" if option is None else option}
        )
        for name, policy in given.items():
            if name != _DEFAULT and name not in findings:
                known = ", ".join((_DEFAULT, *findings))
                raise DataError(f"`uncertain` names `{name}`.{closest(name, findings)} Known: {known}.")
            _check(name, policy)
        default = given.get(_DEFAULT, "ignore")
        return cls(tuple(findings), tuple(str(given.get(name, default)) for name in findings))

    def learn(self, records: Sequence[Record], uncertain: Mapping[str, Sequence[int]]) -> list[Record]:
        """Return the records with the uncertain findings of the training split as ``1.0`` or ``0.0``, where so wanted.

        Soft ones stay None: only the loss can take them, see `soft`.

        Args:
            records: With splits; of findings.
            uncertain: Id -> places of the findings that are uncertain.
        """
        hard = {place: {"ones": 1.0, "zeros": 0.0}.get(policy) for place, policy in enumerate(self.policies)}
        found = []
        for record in records:
            places = uncertain.get(record.id, ()) if record.split == "train" else ()
            if places and record.label is None and len(self.findings) == 1 and hard[0] is not None:
                record = replace(record, label=class_of_finding(hard[0], self.findings[0]))
            elif places and isinstance(record.label, tuple):
                label = tuple(hard[i] if i in places else value for i, value in enumerate(record.label))
                record = replace(record, label=label)
            found.append(record)
        return found

    def soft(self, places: Sequence[int]) -> dict[int, float]:
        """Return place -> probability for those of the uncertain findings that are learnt so."""
        return {
            place: _SOFT if self.policies[place] == "soft" else float(self.policies[place])
            for place in places
            if self.policies[place] not in ("ignore", "ones", "zeros")
        }

    def labelled(
        self, records: Sequence[Record], uncertain: Mapping[str, Sequence[int]]
    ) -> tuple[list[Record], list[Finding]]:
        """Return the records of which some label is known, or learnt softly, and the note that counts the others.

        Args:
            records: With splits, after `learn`.
            uncertain: Id -> places of the findings that are uncertain.

        Example:
            >>> policy = UncertainLabels.make("ignore", ["edema", "mass"])
            >>> rows = [Record("a", None, (None, 1.0), "train"), Record("b", None, (None, None), "test")]
            >>> kept, said = policy.labelled(rows, {})
            >>> [row.id for row in kept], said[0].code
            (['a'], 'unlabelled')
        """
        known = [self._is_labelled(record, uncertain) for record in records]
        lost = [record.id for record, yes in zip(records, known, strict=True) if not yes]
        said = [
            Finding(
                "unlabelled",
                "note",
                f"{len(lost)} of {len(records)} images have no label that is known, and are left out of every split.",
                len(lost),
                tuple(lost[:20]),
            )
        ]
        return [record for record, yes in zip(records, known, strict=True) if yes], said if lost else []

    def _is_labelled(self, record: Record, uncertain: Mapping[str, Sequence[int]]) -> bool:
        if not isinstance(record.label, tuple):
            return record.label is not None or record.mask is not None
        soft = self.soft(uncertain.get(record.id, ())) if record.split == "train" else {}
        return bool(soft) or any(value is not None for value in record.label)

    def describe(self, records: Sequence[Record], uncertain: Mapping[str, Sequence[int]]) -> list[Finding]:
        """Return the note that counts uncertain findings and says what becomes of them; none where there are none."""
        counts = [0] * len(self.findings)
        rows = [record for record in records if uncertain.get(record.id)]
        for record in rows:
            for place in uncertain[record.id]:
                counts[place] += 1
        if not rows:
            return []
        named = ", ".join(
            f"{name} {count} ({policy})"
            for name, count, policy in zip(self.findings, counts, self.policies, strict=True)
            if count
        )
        return [
            Finding(
                "uncertain-labels",
                "note",
                f"{len(rows)} of {len(records)} images have uncertain findings: {named}. The policy holds in `train`;"
                " elsewhere they count as unknown.",
                len(rows),
                (),
                "`data.uncertain` sets the policy of each finding: ignore, ones, zeros, soft, or a probability.",
            )
        ]


def class_of_finding(value: float | None, name: str) -> str | None:
    """Return the class that a single finding is: there are two, and a model of one logit tells them apart.

    Example:
        >>> class_of_finding(1.0, "edema"), class_of_finding(0.0, "edema"), class_of_finding(None, "edema")
        ('edema', 'no edema', None)
    """
    return None if value is None else name if value == 1.0 else f"no {name}"


def _check(name: str, policy: str | float) -> None:
    if str(policy) in POLICIES:
        return
    try:
        if 0.0 <= float(policy) <= 1.0:
            return
    except ValueError:
        pass
    raise DataError(
        f"`uncertain` of `{name}` is `{policy}`.{closest(str(policy), POLICIES)} Expected {', '.join(POLICIES)}, or a"
        " probability from 0 to 1."
    )
