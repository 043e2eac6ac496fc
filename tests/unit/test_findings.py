import pytest

from lightning_transfer.findings import Finding


def test_a_finding_is_plain_and_holds_few_examples() -> None:
    finding = Finding("group-overlap", "error", "1 group is in two splits.", 1, ("a | b",), "Correct the splits.")
    assert finding.to_dict() == {
        "code": "group-overlap", "severity": "error", "message": "1 group is in two splits.", "count": 1,
        "examples": ["a | b"], "advice": "Correct the splits.",
    }  # fmt: skip
    with pytest.raises(ValueError, match="at most 20 `examples`, got 21"):
        Finding("x", "note", "x", 21, tuple(map(str, range(21))))
