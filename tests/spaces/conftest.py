import pytest


@pytest.fixture(autouse=True)
def encoders_end_with_the_test():
    """What was looked up while a test had encoders of its own is forgotten: other tests of the process must not find them."""
    from rlgrad.spaces import table

    yield
    table._kind_of.cache_clear()
