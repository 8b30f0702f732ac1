"""A Ray cluster on this machine, for all tests that need one; for those that end nodes it gets more of them."""

import contextlib
import logging

import pytest

from rlgrad.distributed.cluster import import_ray

with contextlib.suppress(ImportError):  # then all tests that need it are skipped
    import_ray()  # before any test module: Ray reads some settings when it is imported

NODE = {"object_store_memory": 100 * 10**6}
SETTINGS = {
    # A node that ends is noticed soon.
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 2,
    "health_check_initial_delay_ms": 500,
    # Processes begin when they are needed, and not one for each CPU beforehand.
    "prestart_worker_first_driver": False,
    "enable_worker_prestart": False,
}


@pytest.fixture(scope="session")
def cluster():
    ray = import_ray()
    from ray.cluster_utils import Cluster

    head = {**NODE, "num_cpus": 9, "include_dashboard": False, "_system_config": SETTINGS}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.others = []
    made.another = lambda: made.others.append(made.add_node(**NODE, num_cpus=3))
    ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def nodes(cluster):
    """The cluster with two more nodes, which are gone afterwards."""
    for _ in range(2):
        cluster.another()
    yield cluster
    while cluster.others:
        cluster.remove_node(cluster.others.pop())
