from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

Toy = Callable[..., Any]


def _config(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return loaded


def _printed(toy: Toy, *words: object) -> dict[str, Any]:
    done = toy(*words, "--print_config")
    assert done.code == 0, done.err
    loaded: dict[str, Any] = yaml.safe_load(done.out)
    return loaded


def test_the_command_line_wins_over_configs_wherever_it_stands(toy: Toy, small: str, tmp_path: Path) -> None:
    assert toy("fit", "--model.width", 9, "--config", small).run.joinpath("config.yaml").is_file()
    [run] = (tmp_path / "runs" / "toy").iterdir()
    assert _config(run)["model"]["width"] == 9


def test_configs_compose_and_the_later_wins(toy: Toy, small: str, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("model: {width: 6}\ndata: {num_records: 60}\n")
    done = toy("fit", "--config", small, "--config", "b.yaml", "--data.num_records", 64)
    config = _config(done.run)
    assert config["model"]["width"] == 6  # b over small
    assert config["data"] == config["data"] | {"num_records": 64, "batch_size": 16}  # option over b; small stays
    assert config["seed_everything"] == 7
    assert done.run.name.startswith("b-")


def test_the_command_line_wins_over_config_over_checkpoint(toy: Toy, finished: Path, tmp_path: Path) -> None:
    moved = (finished / "model.ckpt").rename(tmp_path / "moved.ckpt")
    (tmp_path / "b.yaml").write_text("data: {num_records: 60, batch_size: 5}\nmodel: {size: large}\n")
    done = toy("test", moved, "--config", "b.yaml", "--data.batch_size", 6)
    config = _config(done.run / "test")
    assert config["model"]["width"] == 5  # of the checkpoint
    assert config["data"]["num_records"] == 60  # of the config
    assert config["model"]["size"] == "large"
    assert config["data"]["batch_size"] == 6  # of the command line


def test_a_checkpoint_s_hyperparameters_do_not_win_on_resume(toy: Toy, finished: Path, small: str) -> None:
    # LightningCLI of 2.6 lets them win: `size` would be `small` again.
    done = toy("fit", "--config", small, "--ckpt_path", finished, "--model.size", "large", "--trainer.max_epochs", 3)
    assert done.code == 0
    assert _config(done.run)["model"]["size"] == "large"


def test_the_saved_config_is_a_config_for_every_verb(toy: Toy, small: str, gradual: str) -> None:
    run = toy("fit", "--config", small, "--config", gradual, "--model.optimizer", "SGD").run
    saved = _config(run)
    assert saved["model"]["optimizer"]["class_path"] == "torch.optim.SGD"
    for verb in ("fit", "plan"):
        assert _without_run(_printed(toy, verb, "--config", run / "config.yaml")) == _without_run(saved)
    again = toy("fit", "--config", run / "config.yaml")
    assert _config(again.run) == saved
    assert again.run != run
    assert again.run.parent == run.parent
    assert again.run.name.startswith("gradual-")
    # The same seed, data and steps: the same weights.
    first, second = (torch.load(folder / "model.ckpt", weights_only=True)["state_dict"] for folder in (run, again.run))
    assert all(torch.equal(first[name], second[name]) for name in first)


def _without_run(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "ckpt_path"}


def test_a_second_run_never_overwrites_the_first(toy: Toy, small: str) -> None:
    runs = [toy("fit", "--config", small, "--trainer.max_epochs", 1).run for _ in range(3)]
    assert len(set(runs)) == 3
    assert all((run / "model.ckpt").is_file() for run in runs)


def test_results_of_a_run_never_overwrite_earlier_ones(toy: Toy, finished: Path) -> None:
    for expected in ("test", "test-2", "test-3"):
        assert toy("test", finished).code == 0
        assert (finished / expected / "metrics.json").is_file()


def test_with_a_checkpoint_no_pretrained_weights_are_read(toy: Toy, finished: Path, small: str) -> None:
    from toy_recipe.module import READ

    saved = yaml.safe_load((finished / "config.yaml").read_text())
    saved["model"]["weights"] = "gone/weights.safetensors"
    (finished / "config.yaml").write_text(yaml.safe_dump(saved))
    for words in (["test", finished], ["predict", finished], ["plan", finished], ["fit", "--ckpt_path", finished]):
        READ.clear()
        done = toy(*words)
        assert done.code == 0, done.err
        assert READ == ["random"], words
    # The run that went on still says what the user meant: used alone it must not start from random weights.
    assert _config(done.run)["model"]["weights"] == "gone/weights.safetensors"
    assert _config(done.run)["model"]["card"] is None
    READ.clear()
    toy("fit", "--config", small, "--model.weights", "mine", "--trainer.fast_dev_run", "true")
    assert READ == ["mine"]


def test_default_loggers_and_checkpoints_lie_in_the_run(trained: Path) -> None:
    assert (trained / "logs" / "csv" / "metrics.csv").is_file()
    assert list((trained / "logs" / "tensorboard").glob("events*"))
    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names[-1] == "last.ckpt"
    assert names[0].startswith("best-epoch=")
    assert _config(trained)["trainer"]["logger"] is None
    assert _config(trained)["trainer"]["callbacks"] is None


def test_the_user_s_logger_and_checkpoint_are_kept(toy: Toy, small: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        """
        trainer:
          logger:
            class_path: lightning.pytorch.loggers.CSVLogger
            init_args: {save_dir: mine}
          callbacks:
            - class_path: lightning.pytorch.callbacks.ModelCheckpoint
              init_args: {filename: own, monitor: val_loss}
        """
    )
    run = toy("fit", "--config", small, "--config", "own.yaml").run
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["own.ckpt"]
    assert list(Path("mine").rglob("metrics.csv"))
    assert not (run / "logs").exists()
    assert toy("fit", "--config", small, "--trainer.logger", "false").code == 0


@pytest.mark.parametrize("devices", ["2", "4"])
def test_test_and_predict_run_on_one_device_and_say_so(
    toy: Toy, finished: Path, devices: str, caplog: pytest.LogCaptureFixture
) -> None:
    said_by = "lightning.pytorch.utilities.rank_zero"  # by name: other tests silence it
    with caplog.at_level("INFO", logger=said_by):
        done = toy("predict", finished, "--trainer.devices", devices, "--trainer.strategy", "ddp")
    assert done.code == 0, done.err
    assert f"`predict` runs on one device, not on `devices: {devices}`" in caplog.text + done.err
    caplog.clear()
    with caplog.at_level("INFO", logger=said_by):
        done = toy("predict", finished)
    assert "one device" not in caplog.text + done.err


def test_a_checkpoint_carries_model_and_data_as_plain_values(trained: Path) -> None:
    payload = torch.load(trained / "model.ckpt", weights_only=True)["lightning_transfer"]
    assert set(payload["config"]) == {"model", "data", "evaluation"}
    assert payload["config"]["model"]["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert payload["config"] == {key: _config(trained)[key] for key in ("model", "data", "evaluation")}
