from lightning_transfer.errors import DataError, TransferError, closest, listing


def test_nothing_near_gives_no_hint() -> None:
    assert closest("zzz", ["resnet18"]) == ""


def test_nearest_word_is_named() -> None:
    assert "`magnetic_tile`" in closest("magnetic_tiles", ["magnetic_tile", "mvtec"])


def test_listing_counts_what_it_leaves_out() -> None:
    assert listing(range(8), limit=3) == "0, 1, 2 and 5 more"
    assert listing([]) == ""


def test_callers_can_catch_all_of_ours() -> None:
    assert issubclass(DataError, TransferError)
