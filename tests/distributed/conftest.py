"""A Ray cluster of three nodes on this machine, for all tests that need one."""

import contextlib
import logging

import pytest

from rlgrad.distributed.cluster import import_ray

with contextlib.suppress(ImportError):  # then all tests that need it are skipped
    import_ray()  # before any test module: Ray reads some settings when it is imported

NODE = {"num_cpus": 3, "object_store_memory": 100 * 10**6}
SOON = {"health_check_period_ms": 500, "health_check_failure_threshold": 2, "health_check_initial_delay_ms": 500}


@pytest.fixture(scope="session")
def cluster():
    ray = import_ray()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "_system_config": SOON})
    made.others = [made.add_node(**NODE) for _ in range(2)]
    made.another = lambda: made.others.append(made.add_node(**NODE))
    ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made
    ray.shutdown()
    made.shutdown()
