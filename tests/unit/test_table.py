"""Columns from annotations."""

from typing import Any

import pytest
from sqlalchemy.dialects.mysql import base as mysql
from sqlalchemy.dialects.sqlite import base as sqlite

from cumulet.core.db.table import column


@pytest.mark.parametrize("dialect", [sqlite.SQLiteDialect(), mysql.MySQLDialect()], ids=["sqlite", "mysql"])
def test_a_float_comes_back_as_one(dialect: Any) -> None:
    """MySQL's DOUBLE is a Decimal unless that is said, and a Decimal is a text in JSON."""
    kind = column("ratio", float).type.dialect_impl(dialect)
    read = kind.result_processor(dialect, None)
    assert isinstance(read(1.5) if read else 1.5, float)
