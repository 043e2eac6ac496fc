import sys

import pytest

from lightning_transfer.errors import TransferError
from lightning_transfer.export.packages import ExportError, check_packages, import_package


def test_what_is_there_is_imported():
    import onnxruntime

    check_packages()
    assert import_package("onnxruntime") is onnxruntime


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(ExportError, match=rf"needs `{name}`.*lightning-transfer\[export\]"):
        check_packages()


def test_a_module_inside_a_package_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(ExportError, match="needs `onnxruntime`, which"):
        import_package("onnxruntime.quantization")


def test_the_error_is_one_that_users_can_mend():
    assert issubclass(ExportError, TransferError)
