"""What all tests share: programs are plain graphs unless a test is marked `xla`, and finished runs are trained once."""

import fcntl
import gc
import hashlib
import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import pytest

# Going through all that is imported, and all graphs that tests have traced, was a seventh of the time of the tests.
gc.set_threshold(50_000, 10, 5)


@pytest.hookimpl(tryfirst=True)  # before pytest reads the markers
def pytest_collection_modifyitems(config, items):
    from helpers import tiers

    tiers.mark(config, items)


@pytest.fixture(scope="session", autouse=True)
def plain_graphs():
    from helpers import xla

    xla.choose(by_rule=False)
    yield
    xla.choose(by_rule=True)


@pytest.fixture(scope="session", autouse=True)
def no_pictures(plain_graphs):
    """A learning curve is a fifth of a short training: it is drawn where `helpers.pictures.drawn` says so."""
    from helpers import pictures

    pictures.draw(False)
    yield
    pictures.draw(True)


@pytest.fixture(scope="session", autouse=True)
def what_is_imported_is_no_garbage(plain_graphs):
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def xla_where_a_test_is_about_it(request, plain_graphs):
    from helpers import xla

    marked = request.node.get_closest_marker("xla") is not None
    if marked:
        xla.choose(by_rule=True)
    yield
    if marked:
        xla.choose(by_rule=False)


@pytest.fixture(autouse=True)
def encoders_end_with_the_test():
    """What a test, or a page of the documentation, has registered must not serve others in the process."""
    yield
    table = sys.modules.get("rlgrad.spaces.table")
    if table is not None:
        table._registered.clear()
        table._kind_of.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def no_records_for_the_user(tmp_path_factory):
    """What tests train is not recorded among the folders that the user of this machine trusts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory, worker_id):
    """Folders of finished runs, by settings, to be read alone: the first test of any process that asks for one trains it."""
    common = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    runs = common / "finished_runs"
    runs.mkdir(exist_ok=True)

    def folder(agent="reinforce", env="CartPole-v1", **settings):
        import rlgrad

        settings = SHORT | settings
        key = hashlib.sha256(repr((agent, env, sorted(settings.items()))).encode()).hexdigest()[:16]
        with (runs / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits, and finds it there
            if not (runs / key).exists():
                shutil.rmtree(runs / f"{key}.part", ignore_errors=True)  # left by a training that failed
                rlgrad.train(agent, env, run_dir=runs / f"{key}.part", verbose=False, **settings).close()
                (runs / f"{key}.part").rename(runs / key)
        return runs / key

    return folder


@pytest.fixture
def finished(trained, tmp_path):
    """A copy, in the test's own folder, of a finished run: `finished("a2c", name="other", seed=3)` is `tmp_path / "other"`."""

    def copy(*what, name="run", **settings):
        return shutil.copytree(trained(*what, **settings), tmp_path / name)

    return copy


# 512 steps of four environments, each of which counts.
SHORT = {"total_timesteps": 512, "num_envs": 4, "num_steps": 32, "vectorization_mode": "sync", "evaluation_episodes": 2}


@pytest.fixture
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Runs without a folder, and files, are left where they are in nobody's way."""
    monkeypatch.chdir(tmp_path)
