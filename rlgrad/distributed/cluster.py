"""Ray, as far as a run uses it: quiet, without its dashboard, and without reports on its use."""

import logging
import os
import socket
from typing import Any

from rlgrad.core.capacity import memory
from rlgrad.core.faults import RemoteTraceback

_SAID_BY_US = (
    r"A worker died or was killed while executing a task|has been marked dead because the detector|Raylet is terminated"
)
_LEAST_STORE = 100 * 10**6  # bytes; Ray takes no less than 75 MiB
_PATIENCE = 10.0  # seconds for a cluster to answer


class _Session:
    """The Ray that this process has started or joined."""

    users = 0  # collectors and learners that need it
    local = False  # it was started here, for this process alone
    reserved = 0  # bytes of the object store for those that come later


def import_ray() -> Any:
    """Return the module.

    Raises:
        ImportError: it is not installed; the message has the command.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning about a change to come
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _SAID_BY_US)
    os.environ.setdefault("RAY_worker_niceness", "0")  # the run waits for its workers, and should not on a busy machine
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ImportError("Workers are processes of Ray: pip install 'rlgrad[ray]'.") from error
    return ray


def connect(address: str | None, workers: int, store: int) -> bool:
    """Join a cluster, or start Ray on this machine, unless this process is connected already.

    Args:
        address: of the cluster's head, or `"auto"`; `None`: start Ray here, for this process alone.
        workers: processes that a cluster on this machine has to hold, whatever its number of cores.
        store: bytes of rollouts that are under way at most.

    Returns:
        True if `disconnect` has to be called.

    Raises:
        ValueError: the address cannot be used; or the rollouts do not fit into the object store.
    """
    ray = import_ray()
    if address is not None and address.startswith("ray://"):
        raise ValueError(
            f"ray_address={address!r} is that of Ray's client, through which a run cannot share memory with its workers: run "
            "rlgrad on a machine of the cluster, with --ray-address auto."
        )
    if ray.is_initialized():
        _require_store(ray, store)
        if _Session.users:
            _Session.users += 1
        return _Session.users > 0
    options: dict[str, Any] = {"address": address}
    if address is None:
        _require_room(store, memory() // 3)
        options = {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, workers),
            "num_gpus": 0,
            "object_store_memory": max(_LEAST_STORE, 2 * (store + _Session.reserved)),
            "include_dashboard": False,
        }
    _require_listener(address)
    # Newer versions have an error of their own for a wrong token.
    refusals = ConnectionError, getattr(ray.exceptions, "AuthenticationError", ConnectionError)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    except refusals as error:
        raise _no_answer(address) from error
    _Session.users, _Session.local = 1, address is None
    try:
        _require_store(ray, store)
    except ValueError:
        disconnect()
        raise
    return True


def _require_listener(address: str | None) -> None:
    """Raise a ValueError if nobody listens at an address with a port: Ray itself would ask for minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        except OSError as error:
            raise _no_answer(address) from error


def _no_answer(address: str | None) -> ValueError:
    return ValueError(
        f"No Ray cluster answers at ray_address={address!r}: start one with `ray start --head`, or leave it out for one on "
        "this machine. One that was started with a token answers where RAY_AUTH_MODE=token is set and ~/.ray/auth_token is the "
        "same file."
    )


def reserve(size: int) -> None:
    """Have a cluster on this machine, if one is started, hold so many bytes more; negative: so many less."""
    _Session.reserved += size


def lost_errors() -> tuple[type[Exception], ...]:
    """Return what Ray raises for a call whose process was lost."""
    errors = import_ray().exceptions
    return errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError, errors.NodeDiedError


def result(call: Any) -> Any:
    """Return the result of a call; `None` if its process was lost. Raise what it raised."""
    ray = import_ray()
    try:
        return ray.get(call)
    except lost_errors():
        return None
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause from (RemoteTraceback(trace) if (trace := getattr(cause, "trace", "")) else None)


def disconnect() -> None:
    """Leave the cluster, or end the one on this machine, once the last collector has done so."""
    _Session.users -= 1
    if _Session.users == 0:
        _Session.local = False
        import_ray().shutdown()


def cpus_per_worker() -> int:
    """Return the CPUs that Ray sets apart for a worker: none on this machine alone, where all of them are ours."""
    return 0 if _Session.local else 1


def describe_room(ray: Any) -> str:
    """Return what is free in the cluster, in words."""
    total, free = ray.cluster_resources().get("CPU", 0.0), ray.available_resources().get("CPU", 0.0)
    nodes = sum(node["Alive"] for node in ray.nodes())
    return f"{free:g} of {total:g} CPUs are free on {nodes} {'node' if nodes == 1 else 'nodes'}"


def _require_store(ray: Any, need: int) -> None:
    stores = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    _require_room(need, int(max(stores, default=0)))


def _require_room(need: int, size: int) -> None:
    if need > size:
        raise ValueError(
            f"The rollouts that are under way take {need / 2**20:,.0f} MiB of Ray's object store, which has "
            f"{size / 2**20:,.0f}: lower num_steps or num_envs, or start Ray with a larger --object-store-memory."
        )
