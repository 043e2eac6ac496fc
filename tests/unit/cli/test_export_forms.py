from __future__ import annotations

import pytest

from lightning_transfer.cli.export_forms import Form
from lightning_transfer.cli.export_images import ImageForm
from lightning_transfer.cli.export_speech import SpeechForm
from lightning_transfer.cli.export_texts import TextForm


def test_a_form_that_lacks_a_step_cannot_be_made() -> None:
    class Half(Form):
        def trace(self):
            return None

    with pytest.raises(TypeError, match="abstract"):
        Half(None, None)


@pytest.mark.parametrize("form", [ImageForm, TextForm, SpeechForm])
def test_every_kind_of_data_has_every_step(form: type[Form]) -> None:
    assert not form.__abstractmethods__
    assert form.ways
