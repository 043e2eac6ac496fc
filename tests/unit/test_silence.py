import logging
import warnings

import pytest

from lightning_transfer.silence import silenced


def test_remarks_are_dropped_errors_come_through_and_levels_return(caplog: pytest.LogCaptureFixture) -> None:
    one, other = logging.getLogger("silence.one"), logging.getLogger("silence.other")
    one.setLevel(logging.INFO)
    other.setLevel(logging.INFO)
    with warnings.catch_warnings(), silenced("silence.one"):
        warnings.warn("not raised", stacklevel=1)
        one.warning("dropped")
        one.error("an error")
        other.warning("not named")
    assert [record.message for record in caplog.records] == ["an error", "not named"]
    with pytest.raises(ValueError, match="through"), silenced("silence.one"):
        raise ValueError("through")
    assert one.level == logging.INFO
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", stacklevel=1)
