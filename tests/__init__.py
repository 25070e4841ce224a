import pytest

# Their failed asserts show both sides, as those of tests do.
pytest.register_assert_rewrite("tests.support")
