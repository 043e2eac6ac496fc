"""What a missing, broken or unreachable library says."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lightning_transfer.backbones import libraries
from lightning_transfer.errors import BackboneError


@pytest.mark.parametrize(("library", "extra"), [("timm", "vision"), ("torchvision", "vision"), ("transformers", "nlp")])
def test_a_missing_library_names_the_line_that_installs_it(monkeypatch, library, extra):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{library}'", name=library)

    monkeypatch.setattr(libraries, "import_module", missing)
    with pytest.raises(
        BackboneError, match=rf"`{library}` is not installed.*pip install lightning-transfer\[{extra}\]"
    ):
        libraries.import_library(library)


def test_a_library_that_lacks_a_part_of_its_own_is_not_called_missing(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'regex'", name="regex")

    monkeypatch.setattr(libraries, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="regex"):
        libraries.import_library("transformers")


@pytest.mark.parametrize(
    "failure",
    [
        'raise RuntimeError("Detected that PyTorch and TorchAudio were compiled with different CUDA versions.")',
        'raise OSError("libcudart.so.12: cannot open shared object file: No such file or directory")',
    ],
)
@pytest.mark.slow
def test_a_broken_torchaudio_is_named_when_transformers_falls_over_it(tmp_path, failure):
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text(failure)
    root = Path(__file__).parents[3]
    code = (
        "from lightning_transfer.backbones.libraries import explain_torchaudio, import_library\n"
        "with explain_torchaudio(): import_library('transformers.audio_utils')\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "BackboneError: `transformers` could not be imported, because the installed `torchaudio`" in ended.stderr
    assert "pip uninstall torchaudio" in ended.stderr


def test_other_import_errors_pass_through_unchanged():
    with pytest.raises(RuntimeError, match="something else"), libraries.explain_torchaudio():
        raise RuntimeError("something else")


def test_a_cause_deep_in_the_chain_counts():
    wrapped = ImportError("Could not import module 'AutoModel'")
    wrapped.__cause__ = RuntimeError("PyTorch and TorchAudio were compiled with different CUDA versions")
    with pytest.raises(BackboneError, match="different CUDA"), libraries.explain_torchaudio():
        raise wrapped


@pytest.mark.parametrize(("exists", "state"), [(True, "incomplete or unreadable"), (False, "does not exist")])
def test_an_unreachable_hub_names_model_cache_and_way_out(tmp_path, exists, state):
    cache = tmp_path / "hub"
    if exists:
        cache.mkdir()

    def fetch():
        # Some libraries make the cache before they fail: the message tells what was there before.
        cache.mkdir(exist_ok=True)
        raise ConnectionError("no route")

    with (
        pytest.raises(BackboneError, match=rf"`timm/x`: no route\..*{cache}`.*{state}.*--model.weights PATH"),
        libraries.explain_failures("timm/x", cache),
    ):
        fetch()


def test_network_errors_of_the_hubs_own_client_are_explained(tmp_path):
    httpx = import_module("httpx")
    with pytest.raises(BackboneError, match="no name server"), libraries.explain_failures("hf/x", tmp_path):
        raise httpx.ConnectError("no name server")


def test_mistakes_in_the_code_are_not_explained_away(tmp_path):
    with pytest.raises(TypeError, match="a bug"), libraries.explain_failures("hf/x", tmp_path):
        raise TypeError("a bug")
