"""Notice a CTC model that has stopped at writing nothing, and say what helps."""

from __future__ import annotations

__all__ = ["CollapseWatch"]

_MANY_BLANKS = 0.97
_MANY_EMPTY = 0.9


class CollapseWatch:
    """Watch the validations of a fit for a model that answers everything with blanks.

    Every CTC model begins there: blanks are the first thing to learn. One that stays there for several checks has
    found it cheaper than listening, and seldom leaves by itself.

    Args:
        patience: Checks in a row after which it is said, once.

    Example:
        >>> watch = CollapseWatch(patience=2)
        >>> watch.check(0.99, 1.0, rate=1e-3, vocabulary_is_new=True)
        ''
        >>> watch.check(0.99, 1.0, rate=1e-3, vocabulary_is_new=True)[:61]
        'Nothing but blanks for 2 validations (99.0% of frames, 100.0%'
    """

    def __init__(self, patience: int = 3) -> None:
        self.patience = patience
        self.in_a_row = 0
        self.told = False

    def check(self, blank_share: float, empty_share: float, *, rate: float | None, vocabulary_is_new: bool) -> str:
        """Take in one validation.

        Args:
            blank_share: Of all frames of sound.
            empty_share: Of all records, in which nothing was heard.
            rate: The largest learning rate at present; None if there is none.
            vocabulary_is_new: The head began without a pretrained one.

        Returns:
            What to do, once; empty if all is well, or it was said.
        """
        collapsed = blank_share >= _MANY_BLANKS and empty_share >= _MANY_EMPTY
        self.in_a_row = self.in_a_row + 1 if collapsed else 0
        if self.in_a_row < self.patience or self.told:
            return ""
        self.told = True
        now = "" if rate is None else f" (now {rate:.1e})"
        start = (
            "the head begins with no pretrained row: train it longer before the backbone opens, or keep the "
            "checkpoint's vocabulary (`data.vocabulary`)"
            if vocabulary_is_new
            else "the checkpoint's head is the start, so it did hear before: try lower rates first"
        )
        return (
            f"Nothing but blanks for {self.in_a_row} validations ({blank_share:.1%} of frames, {empty_share:.1%} of "
            f"records empty). What helps, in this order: 1. a learning rate{now} three to ten times smaller for the "
            "backbone (`DiscriminativeLR`); 2. a warm-up over the first tenth of the steps; 3. unfreezing later "
            f"(`unfreeze_at_epoch`), so that the head has learnt its tokens; 4. the vocabulary: {start}. If texts are "
            "longer than their sound (`train_too_short`), or the sound is silent, no setting helps."
        )
