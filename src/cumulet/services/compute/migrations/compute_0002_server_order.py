"""An index in the order in which a project's servers are listed."""

from alembic import op

revision = "compute_0002"
down_revision = "compute_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("compute_server_order", "compute_server", ["project_id", "created_at", "id"], unique=False)
