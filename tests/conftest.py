"""Fixtures that start real servers, for every test that names them."""

pytest_plugins = ["tests.support.seaweedfs", "tests.support.postgres"]
