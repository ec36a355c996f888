"""Runs pinned Tempest suites against a running Cumulet, over its public ports only, and counts every test.

Examples:
  conformance/run smoke                              against the cloud of the default data directory
  conformance/run --data /tmp/cloud identity image   against another one
  conformance/run --start identity                   starts a cloud of its own (simulated), and removes it afterwards
  conformance/run compute --regex test_list --out /tmp/out
  conformance/run compute --only /tmp/out/failing.txt
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tempest
import yaml

import results
import settings
from discover import Found, discover

SETS = {
    "identity": r"^tempest\.(serial_tests\.)?api\.identity\.",
    "image": r"^tempest\.(serial_tests\.)?api\.image\.",
    "compute": r"^tempest\.(serial_tests\.)?api\.compute\.",
    "network": r"^tempest\.(serial_tests\.)?api\.network\.",
    "object_storage": r"^tempest\.(serial_tests\.)?api\.object_storage\.",
    "scenario": r"^tempest\.(serial_tests\.)?scenario\.",
    "smoke": r"^tempest\..*\[.*\bsmoke\b.*\]",
    "all": r"^tempest\.",
}
CLOUD = "cumulet"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="conformance/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("CUMULET_DATA") or ("/var/lib/cumulet" if os.geteuid() == 0 else "~/.local/share/cumulet")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"one or more of {', '.join(SETS)} (default: smoke)")
    parser.add_argument("--data", type=Path, default=Path(data).expanduser(), help="the cloud's data directory")
    parser.add_argument("--start", action="store_true", help="start a simulated cloud for this run")
    parser.add_argument("--cumulet", default="", help="the command that --start runs (default: the checkout's)")
    parser.add_argument("--port-offset", type=int, default=20000, help="of the cloud that --start starts")
    parser.add_argument("--regex", help="of the chosen sets, only the tests whose id matches")
    parser.add_argument("--only", type=Path, help="of the chosen sets, only the tests named in this file")
    parser.add_argument("--concurrency", "-j", type=int, default=2, help="workers (default: 2)")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for each build, and for SSH (default: 300)")
    parser.add_argument("--out", type=Path, default=Path("artifacts/conformance"), help="where results are written")
    parser.add_argument("--list", action="store_true", help="list the chosen tests, run none")
    chosen = parser.parse_args()
    for name in chosen.sets:
        if name not in SETS:
            parser.error(f"there is no set {name}; the sets are {', '.join(SETS)}")
    chosen.sets = chosen.sets or ["smoke"]
    return chosen


def main() -> int:
    wanted = arguments()
    if not wanted.start:
        return run(wanted)
    with tempfile.TemporaryDirectory(prefix="conformance-") as data:
        wanted.data = Path(data)
        cloud = start(wanted)
        try:
            return run(wanted)
        finally:
            cloud.terminate()
            cloud.wait(timeout=60)


def start(wanted: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Start a cloud and return once every port answers."""
    checkout = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "cumulet"
    command = [wanted.cumulet or str(checkout), "up", "--data", str(wanted.data), "--hypervisor", "simulated"]
    log = wanted.data / "up.log"
    with log.open("w") as file:
        arguments = ("--port-offset", str(wanted.port_offset))
        process = subprocess.Popen([*command, *arguments], stdout=file, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not re.search(r"^ready in", log.read_text(), re.MULTILINE):
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            raise SystemExit(f"the cloud did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    return process


def run(wanted: argparse.Namespace) -> int:
    """Exit status: 0 if no test failed, 1 if one did, 2 if nothing ran."""
    workspace = (wanted.out / "workspace").resolve()
    for name in ("etc", "logs", "lock"):
        (workspace / name).mkdir(parents=True, exist_ok=True)
    found = discover(login(wanted.data))
    settings.write(workspace / "etc" / "tempest.conf", found, workspace=workspace, timeout=wanted.timeout)
    chosen = choose(wanted, listing(workspace))
    if wanted.list:
        print("\n".join(chosen))
        return 0
    if not chosen:
        print("no test is chosen")
        return 2
    print(f"{len(chosen)} tests of {' '.join(wanted.sets)}, {wanted.concurrency} workers", flush=True)
    stream = execute(workspace, chosen, wanted.concurrency)
    return report(wanted.out, results.read(stream, chosen))


def login(data: Path) -> Found:
    """The admin's login, from the cloud's own clouds.yaml."""
    try:
        cloud = yaml.safe_load((data / "clouds.yaml").read_text())["clouds"][CLOUD]
    except OSError as error:
        raise SystemExit(f"cannot read {data}/clouds.yaml: {error.strerror}; is a cloud up there? (--data)") from error
    auth = cloud["auth"]
    return Found(auth["auth_url"], auth["username"], auth["password"], auth["project_name"], cloud["region_name"])


def environment(workspace: Path) -> dict[str, str]:
    bin_directory = str(Path(sys.executable).parent)
    return os.environ | {
        "TEMPEST_CONFIG_DIR": str(workspace / "etc"),
        "TEMPEST_CONFIG": "tempest.conf",
        "PYTHON": sys.executable,
        "PATH": f"{bin_directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def listing(workspace: Path) -> list[str]:
    """Every test id that Tempest knows. A module that cannot be imported would make it short, so that is an error."""
    top = Path(tempest.__file__).parents[1]
    discovery = f"{top}/tempest/test_discover"
    (workspace / ".stestr.conf").write_text(
        f"[DEFAULT]\ntest_path={discovery}\ntop_dir={top}\ngroup_regex=([^\\.]*\\.)*\n"
    )
    shutil.rmtree(workspace / ".stestr", ignore_errors=True)
    options: Any = {"cwd": workspace, "env": environment(workspace), "capture_output": True, "text": True}
    subprocess.run(["stestr", "init"], check=True, **options)
    answer = subprocess.run(["stestr", "list"], check=False, **options)
    tests = [line for line in answer.stdout.splitlines() if re.match(r"tempest\.", line)]
    if answer.returncode or not tests or "_FailedTest" in answer.stdout:
        raise SystemExit(f"Tempest's tests cannot be listed:\n{answer.stdout[-1000:]}{answer.stderr[-2000:]}")
    return tests


def choose(wanted: argparse.Namespace, tests: list[str]) -> list[str]:
    chosen = [test for test in tests if any(re.search(SETS[name], test) for name in wanted.sets)]
    if wanted.regex:
        chosen = [test for test in chosen if re.search(wanted.regex, test)]
    if wanted.only:
        named = {line.split("\t")[0].strip() for line in wanted.only.read_text().splitlines()}
        chosen = [test for test in chosen if test.split("[")[0] in named or test in named]
    return chosen


def execute(workspace: Path, chosen: list[str], concurrency: int) -> Path:
    """Run the tests; returns the file with what came of them."""
    names = workspace / "tests.txt"
    names.write_text("\n".join(chosen) + "\n")
    stream = workspace / "results.subunit"
    command = ["stestr", "run", "--subunit", "--load-list", str(names), "--concurrency", str(concurrency)]
    began = time.monotonic()
    with stream.open("wb") as out, (workspace / "stestr.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=workspace, env=environment(workspace), stdout=out, stderr=log)
        while True:
            try:
                process.wait(timeout=60)
                return stream
            except subprocess.TimeoutExpired:
                size = stream.stat().st_size // 1024
                print(f"  {time.monotonic() - began:.0f} s, {size} KiB of results", flush=True)


def report(out: Path, found: results.Results) -> int:
    """Write failing.txt, passing.txt, skipped.txt and results.json; print the failures and the count."""
    (out / "failing.txt").write_text("".join(f"{test}\t{why}\n" for test, why in sorted(found.failed.items())))
    (out / "skipped.txt").write_text("".join(f"{test}\t{why}\n" for test, why in sorted(found.skipped.items())))
    (out / "passing.txt").write_text("".join(f"{test}\n" for test in sorted(found.passed)))
    document = {
        "passed": sorted(found.passed),
        "failed": found.failed,
        "skipped": found.skipped,
        "teardown_failures": found.teardown_failures,
    }
    (out / "results.json").write_text(json.dumps(document, indent=1))
    for test, why in sorted(found.failed.items()):
        print(f"FAILED {test}\n       {why[:300]}")
    for name, why in sorted(found.teardown_failures.items()):
        print(f"clean-up failed in {name} (its tests keep their result)\n       {why[:300]}")
    print(f"results: {out}")
    print(found.line)
    if not found.passed and not found.failed:
        return 2
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
