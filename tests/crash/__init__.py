"""SIGKILL at random moments."""

import pytest

pytest.register_assert_rewrite("tests.crash.load", "tests.crash.host")
