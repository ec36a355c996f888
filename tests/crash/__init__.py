"""SIGKILL at random moments."""

import pytest

pytest.register_assert_rewrite(
    *(
        f"tests.crash.{name}"
        for name in ("killing", "load", "host", "object_disk", "object_users", "object_users_large")
    ),
    *(f"tests.crash.object_users_{name}" for name in ("more", "s3", "versions")),
)
