"""Servers know the image that is being made of them, and the flavor they had before they were resized."""

import sqlalchemy as sa
from alembic import op

from cumulet.core.db import table as types

revision = "compute_0004"
down_revision = "compute_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("compute_server", sa.Column("image_in_making", sa.String(length=64), nullable=True))
    op.add_column("compute_server", sa.Column("old_flavor", types.Json(), nullable=True))
