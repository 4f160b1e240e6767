import pytest

pytest_plugins = "pytester"


@pytest.fixture
def from_conftest():
    return "conftest"
