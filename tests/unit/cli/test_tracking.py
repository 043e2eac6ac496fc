import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_transfer.cli.tracking import continue_runs, log_config, log_scores, write_run_ids


class Tracker(DummyLogger):
    """Keeps what it is given."""

    def __init__(self, version: str | None = "r1") -> None:
        super().__init__()
        self.number = version
        self.params: dict[str, Any] = {}
        self.scores: dict[str, float] = {}

    @property
    def version(self) -> str | None:  # type: ignore[override]
        return self.number

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.params = params

    def log_metrics(self, metrics: dict[str, float], *args: Any, **kwargs: Any) -> None:
        self.scores = metrics


class Broken(Tracker):
    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no answer")


def test_trackers_get_the_config_without_the_options_of_loggers(tmp_path: Path) -> None:
    tracker = Tracker()
    config = {"data": {"size": [64, 32], "fold": None}, "trainer": {"logger": {"api_key": "abc"}, "max_epochs": 2}}
    log_config([tracker, CSVLogger(tmp_path)], config, Path("runs/a"))
    assert tracker.params == {
        "run_folder": "runs/a", "data.size": "[64, 32]", "data.fold": None, "trainer.max_epochs": 2,
    }  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_scores_come_with_their_intervals_and_a_broken_tracker_costs_a_warning() -> None:
    tracker = Tracker()
    scores = {
        "macro_f1": {"value": 0.5, "low": 0.4, "high": 0.6},
        "auroc": {"value": None, "low": None, "high": None, "reason": "one class"},
        "escapes": {"value": 3, "low": None, "high": None},
    }
    with pytest.warns(UserWarning, match="Broken did not take the test scores: ConnectionError: no answer"):
        log_scores([Broken(), tracker], scores, "test")
    assert tracker.scores == {
        "test_macro_f1": 0.5, "test_macro_f1_low": 0.4, "test_macro_f1_high": 0.6, "test_escapes": 3.0,
    }  # fmt: skip


def test_only_known_trackers_of_this_folder_go_on(tmp_path: Path) -> None:
    write_run_ids([CSVLogger(tmp_path)], tmp_path)
    assert not (tmp_path / "tracking.json").exists()
    (tmp_path / "tracking.json").write_text(json.dumps({"WandbLogger": "w1", "Tracker": "t1"}))
    entries = [
        SimpleNamespace(class_path=f"some.place.{name}", init_args={})
        for name in ("WandbLogger", "MLFlowLogger", "Tracker")
    ]
    continue_runs(entries, tmp_path)
    assert [entry.init_args for entry in entries] == [{"id": "w1", "resume": "allow"}, {}, {}]
    continue_runs(None, tmp_path)


def test_fit_and_test_are_one_run_of_mlflow(
    toy: Callable[..., Any], small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker's own client is the oracle."""
    mlflow = pytest.importorskip("mlflow")
    # MLflow 3 wants a data base unless it is told that files are meant.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = f"file:{tmp_path / 'mlruns'}"
    (tmp_path / "track.yaml").write_text(
        "trainer:\n  logger:\n    class_path: lightning.pytorch.loggers.MLFlowLogger\n"
        f"    init_args: {{experiment_name: toys, tracking_uri: '{store}'}}\n"
    )
    fit = toy("fit", "--config", small, "--config", tmp_path / "track.yaml")
    assert fit.code == 0, fit.err
    assert toy("test", fit.run).code == 0

    client = mlflow.tracking.MlflowClient(store)
    experiment = client.get_experiment_by_name("toys")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.params["data.batch_size"] == "16"
    assert Path(run.data.params["run_folder"]).name == fit.run.name
    found = json.loads((fit.run / "test" / "metrics.json").read_text())
    assert run.data.metrics["test_macro_f1"] == pytest.approx(found["macro_f1"]["value"])
    assert run.data.metrics["test_macro_f1_low"] == pytest.approx(found["macro_f1"]["low"])
    assert "val_loss" in run.data.metrics
    # The report's curves are there as well.
    assert (fit.run / "logs" / "csv" / "metrics.csv").is_file()
