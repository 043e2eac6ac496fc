from __future__ import annotations

from lightning_transfer.evaluation import progress


def test_bar_shows_what_was_done(capsys):
    with progress("Bootstrap", total=4) as bar:
        bar.update(4)
        assert bar.n == 4
    assert "Bootstrap" in capsys.readouterr().err


def test_quiet_bar_writes_nothing(capsys):
    with progress("Bootstrap", total=4, show=False) as bar:
        bar.update(4)
    captured = capsys.readouterr()
    assert captured.err + captured.out == ""
