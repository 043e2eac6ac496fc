import pytest

from lightning_transfer.cli.export_options import ExportOptions


def test_the_defaults_write_onnx_and_compare_on_200_samples():
    assert ExportOptions() == ExportOptions(format="onnx", int8=False, n_samples=200, samples=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "`n_samples` of at least 1, got 0"),
        ({"int8": True, "format": "pt2"}, "`format` is `pt2`"),
        ({"int8": True, "samples": "folder"}, "Leave out `--samples folder`"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExportOptions(**options)
