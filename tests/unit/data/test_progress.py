from lightning_transfer.data.progress import quiet


def test_quiet_takes_steps_and_shows_nothing(capsys: object) -> None:
    with quiet("Counting", 3) as bar:
        bar.update()
        bar.update(2)
    assert capsys.readouterr() == ("", "")  # type: ignore[attr-defined]
