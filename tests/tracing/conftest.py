"""What the tracer is known not to follow yet: each limit has a test that will fail, loudly, once it is lifted."""

import pytest

KNOWN_LIMITS = {
    "test_module_untouched.py::test_writing_in_place_changes_nothing[buffer.set_]": "set_ does not reach the tracer",
}


def pytest_collection_modifyitems(items):
    for item in items:
        for name, reason in KNOWN_LIMITS.items():
            if item.nodeid.endswith(name):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
