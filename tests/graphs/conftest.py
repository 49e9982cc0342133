"""What the tracer is known not to follow yet: each limit has a test that will fail, loudly, once it is lifted."""

import pytest

KNOWN_LIMITS = {
    "test_module_untouched.py::test_writing_in_place_changes_nothing[buffer.set_]": "set_ does not reach the tracer",
    "test_rules_values_nodes.py::test_writing_into_a_tensor_writes_into_its_views": (
        "a view that was taken before keeps its sources"
    ),
    "test_tracer.py::test_functions_without_a_node_lead_on[vmap]": "functions under vmap see wrapped tensors",
    "test_tracer.py::test_packed_sequences": "packed sequences need the values of lengths",
}


def pytest_collection_modifyitems(items):
    for item in items:
        for name, reason in KNOWN_LIMITS.items():
            if item.nodeid.endswith(name):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
