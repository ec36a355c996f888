"""`cumulet status` against a whole cloud: it counts what the APIs say."""

import json
import time

from click.testing import CliRunner

from cumulet import status
from cumulet.cli import cumulet
from tests.cloud import InProcessCloud


def test_counts_are_what_the_apis_say(cloud: InProcessCloud) -> None:
    written = cloud.call(cloud.program.status(time.time(), 0.5))
    status.write(cloud.data, written)
    try:
        shown = CliRunner().invoke(cumulet, ["status", "--data", str(cloud.data), "--json"])
        words = CliRunner().invoke(cumulet, ["status", "--data", str(cloud.data)]).output
    finally:
        status.remove(cloud.data)
    assert shown.exit_code == 0, shown.output
    holds = json.loads(shown.output)["holds"]
    assert holds["networks"] == str(len(list(cloud.connect().network.networks())))
    assert "simulated: no packet flows" in words
    assert "vCPUs" in words


def test_what_cannot_be_counted_is_said(cloud: InProcessCloud) -> None:
    status.write(cloud.data, cloud.call(cloud.program.status(time.time(), 0.5)))
    file = cloud.data / "admin-openrc"
    content = file.read_text()
    file.unlink()
    try:
        result = CliRunner().invoke(cumulet, ["status", "--data", str(cloud.data)])
    finally:
        file.write_text(content)
        status.remove(cloud.data)
    assert result.exit_code == 0
    assert "cannot be told: cannot read" in result.output
