"""What came of the tests: every chosen test is counted once, also one whose class never got to run."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import subunit
import testtools

_CLASS_EVENT = re.compile(r"(setUp|tearDown)(?:Class|Module) \((.*)\)$")


@dataclass
class Results:
    """Test ids by outcome; failures and skips with their reason."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    teardown_failures: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def read(stream: Path, chosen: list[str]) -> Results:
    """Read a subunit v2 stream. A test without an outcome has its class's, and counts as failed if that is good."""
    outcomes, classes, teardowns = _events(stream)
    results = Results(teardown_failures=teardowns)
    for test in chosen:
        name = test.split("[")[0]
        status, reason = outcomes.get(test) or _of_class(name, classes)
        if status in ("success", "xfail"):
            results.passed.append(name)
        elif status == "skip":
            results.skipped[name] = reason
        else:
            results.failed[name] = reason
    return results


def _of_class(name: str, classes: dict[str, tuple[str, str]]) -> tuple[str, str]:
    owner = name.rpartition(".")[0]
    return classes.get(owner) or classes.get(owner.rpartition(".")[0]) or ("fail", "it never ran")


def _events(
    stream: Path,
) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]], dict[str, str]]:
    """Outcomes of tests, outcomes of class set-ups that were not good, and failures of class tear-downs."""
    outcomes: dict[str, tuple[str, str]] = {}
    classes: dict[str, tuple[str, str]] = {}
    teardowns: dict[str, str] = {}

    def take(test: dict[str, Any]) -> None:
        status = test["status"]
        if status == "exists":  # a worker's listing
            return
        event = _CLASS_EVENT.match(test["id"] or "")
        if event is None:
            outcomes[test["id"]] = (status, _reason(test))
        elif event[1] == "tearDown" and status == "fail":
            teardowns[event[2]] = _reason(test)
        elif status in ("fail", "skip"):
            classes[event[2]] = (status, _reason(test))

    with stream.open("rb") as file:
        case = subunit.ByteStreamToStreamResult(file, non_subunit_name="output")
        result = testtools.StreamToDict(take)
        result.startTestRun()
        case.run(result)
        result.stopTestRun()
    return outcomes, classes, teardowns


def _reason(test: dict[str, Any]) -> str:
    """The reason of a skip, or the exception that ended a traceback with what it says, on one line."""
    details = test.get("details") or {}
    if test["status"] == "skip":
        return details["reason"].as_text().strip() if "reason" in details else "no reason given"
    if test["status"] == "inprogress":
        return "its worker died"
    text = next((value.as_text() for key, value in details.items() if key.startswith("traceback")), "")
    lines = [line for line in text.splitlines() if line.strip()]
    starts = [at for at, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
    return " ".join(line.strip() for line in lines[starts[-1] :])[:500] if starts else "no traceback"
