"""Weights & Biases and MLflow, each by itself without a network: what they are told, and that a run goes on as the same."""

import importlib.util
from types import SimpleNamespace

import pytest
import yaml

NAMES = ("time/timesteps", "train/return", "gradient/snr/dense#2")
CONFIG = {"agent": {"name": "a2c", "gamma": 0.9}, "env": "CartPole-v1", "wrappers": []}


def require(package):
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: pip install 'rlgrad[{package}]'")


def write(log, path, rows, start=0, end=True):
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    run = SimpleNamespace(path=path, timesteps=start, metrics=NAMES, finished=True)
    log.on_start(run)
    for run.timesteps, value in rows:
        log.on_update(run, dict(zip(NAMES, (float(run.timesteps), value, float("nan")), strict=True)))
    if end:
        log.on_end(run)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"  # to make one takes seconds


class TestMLflow:
    @pytest.fixture(autouse=True)
    def in_a_file(self, database, tmp_path, monkeypatch):
        require("mlflow")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        monkeypatch.chdir(tmp_path)

    def written(self, path, rows, **options):
        import mlflow

        from rlgrad.logs.mlflow import MLflowLog

        write(MLflowLog(), path, rows, **options)
        client = mlflow.MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name(path.name).experiment_id])
        history = client.get_metric_history(run.info.run_id, "train/return")
        return run, [(metric.step, metric.value) for metric in history]

    def test_rows_and_the_config_arrive(self, tmp_path):
        run, history = self.written(tmp_path, [(10, 1.5), (20, 2.5)])
        assert history == [(10, 1.5), (20, 2.5)]
        assert (run.info.status, run.info.run_name) == ("FINISHED", tmp_path.name)
        assert run.data.params == {"agent.name": "a2c", "agent.gamma": "0.9", "env": "CartPole-v1", "wrappers": "[]"}

    def test_a_run_that_goes_on_is_the_same_run_and_sends_no_row_twice(self, tmp_path):
        self.written(tmp_path, [(10, 1.0), (20, 2.0), (30, 3.0)], end=False)
        run, history = self.written(tmp_path, [(20, 2.0), (30, 3.0), (40, 4.0)], start=10)
        assert history == [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]
        assert run.info.status == "FINISHED"

    def test_a_run_that_failed_or_was_stopped_says_so(self, tmp_path):
        from rlgrad.logs.mlflow import MLflowLog

        log = MLflowLog()

        def training():
            try:
                write(log, tmp_path, [(10, 1.0)], end=False)
                raise FloatingPointError
            finally:
                log.on_end(SimpleNamespace(finished=False, stop=False))

        with pytest.raises(FloatingPointError):
            training()
        assert log._client.get_run(log._id).info.status == "FAILED"
        log.on_end(SimpleNamespace(finished=False, stop=False))
        assert log._client.get_run(log._id).info.status == "KILLED"

    def test_names_that_it_refuses_are_changed(self, tmp_path):
        from rlgrad.logs.mlflow import MLflowLog

        log = MLflowLog()
        write(log, tmp_path, [(10, 1.0)])
        log.on_update(SimpleNamespace(timesteps=20), {"gradient/snr/dense#2": 0.5})
        assert log._client.get_run(log._id).data.metrics["gradient/snr/dense_2"] == 0.5

    def test_another_server_is_an_error_in_words(self, tmp_path, monkeypatch):
        self.written(tmp_path, [(10, 1.0)])
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
        with pytest.raises(ConnectionError, match=r"cannot resume a run at sqlite:(.|\n)*Set MLFLOW_TRACKING_URI"):
            self.written(tmp_path, [(20, 1.0)], start=10)

    def test_a_row_that_is_refused_is_said_and_training_goes_on(self, tmp_path, caplog):
        from rlgrad.logs.mlflow import MLflowLog

        log = MLflowLog()
        write(log, tmp_path, [(10, 1.0)])
        log._client.delete_run(log._id)
        log.on_update(SimpleNamespace(timesteps=20), {"train/return": 1.0})
        assert "MLflow did not take the row of step 20, training continues" in caplog.text


class TestWeightsAndBiases:
    @pytest.fixture(autouse=True)
    def offline(self, tmp_path, monkeypatch):
        require("wandb")
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_SILENT", "true")
        monkeypatch.chdir(tmp_path)
        yield
        import wandb

        wandb.teardown()  # which has read the environment variables once

    def written(self, path, rows, **options):
        import wandb

        from rlgrad.logs.wandb import WandbLog

        write(WandbLog(), path, rows, **options)
        wandb.teardown()  # as at the end of the process: until then W&B writes in the background
        return [file.read_bytes() for file in sorted(path.glob("wandb/offline-run-*/run-*.wandb"))]

    def test_rows_and_the_config_are_in_the_runs_folder(self, tmp_path):
        (file,) = self.written(tmp_path, [(10, 1.5), (20, 2.5)])
        assert [name for name in ("train/return", "CartPole-v1", "gamma") if name.encode() not in file] == []

    def test_a_run_that_goes_on_is_the_same_run(self, tmp_path):
        self.written(tmp_path, [(10, 1.0)])
        self.written(tmp_path, [(20, 2.0)], start=10)
        (name,) = {file.name for file in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}
        assert name == f"run-{(tmp_path / 'wandb-run-id.txt').read_text()}.wandb"

    def test_online_without_an_account_is_an_error_in_words(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", "")
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        with pytest.raises(ConnectionError, match="WANDB_MODE=offline needs no account"):
            self.written(tmp_path, [(10, 1.0)])
