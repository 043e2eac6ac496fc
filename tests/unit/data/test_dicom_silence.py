import logging
import threading
import warnings

import pytest

from lightning_transfer.data.dicom_silence import silence


def _warn_as(module: str) -> None:
    warnings.warn_explicit("Jane Doe", UserWarning, f"{module}.py", 1, module=module)


def test_warnings_of_pydicom_are_dropped_and_others_pass() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with silence():
            _warn_as("pydicom.valuerep")
            _warn_as("pylibjpeg.utils")
            _warn_as("elsewhere")
    assert [warning.filename for warning in seen] == ["elsewhere.py"]


def test_log_lines_are_dropped_and_come_back(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pydicom")
    with silence():
        logger.warning("Jane Doe")
    logger.warning("after")
    assert [record.message for record in caplog.records] == ["after"]


def test_filters_are_restored_after_the_last_of_several_threads() -> None:
    before, level = list(warnings.filters), logging.getLogger("pydicom").level
    inside, leave = threading.Barrier(3), threading.Event()

    def read() -> None:
        with silence():
            inside.wait(10)
            leave.wait(10)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    with silence():
        pass
    assert not logging.getLogger("pydicom").isEnabledFor(logging.ERROR)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert list(warnings.filters) == before
    assert logging.getLogger("pydicom").level == level


def test_an_error_restores_too() -> None:
    before = list(warnings.filters)
    with pytest.raises(KeyError), silence():
        raise KeyError
    assert list(warnings.filters) == before
