"""fsx and pjdfstest against mounts of megamount on the emulator.

Every suite counts what passed, failed and was excluded; the run fails when a case fails that is not
excluded, when an excluded one passes, or when a line of the list matches nothing. scripts/conformance
says how it is started and builds what it needs.
"""

import argparse
import collections
import fnmatch
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "acceptance"))

from lab import Failure, Lab, stop_on_signals, wait_until  # noqa: E402

# Uploads happen while fsx runs, not after it.
EAGER = ["--write-back", "100ms", "--write-back-max", "500ms", "--drain", "5m"]
# Operations of one run of fsx; a thousand take about a second.
QUICK_ROUND, LONG_ROUND = 1500, 10_000
PJDFSTEST_DEADLINE = 600
FSX_DEADLINE = 900


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tail(text, lines=40):
    return "\n".join(text.splitlines()[-lines:])


class Fsx:
    """Rounds of fsx: each variant on a file of its own, then all files through a fresh mount."""

    def __init__(self, lab, tools, seed):
        self.lab, self.binary, self.seed = lab, str(tools / "fsx"), seed
        self.variants = sorted(HERE.glob("fsx-*.toml"))
        self.passed, self.failed, self.passed_over, self.operations, self.round = 0, 0, 0, 0, 0

    def _prepare(self, path, variant):
        """fsx in block mode changes the file that is there: it has to be on the server."""
        if variant.stem != "fsx-uploaded":
            return
        path.write_bytes(b"\0" * (256 << 10))
        name = f"/{path.name}"
        wait_until(
            f"the upload of {name}",
            lambda: any(node["path"] == name for node in self.lab.emulator.live()),
        )

    def _run(self, mount, variant, operations):
        self.seed += 1
        path = mount.mountpoint / f"{variant.stem}.{self.seed}"
        self._prepare(path, variant)
        artifacts = self.lab.directory / "fsx"
        artifacts.mkdir(exist_ok=True)
        command = [
            self.binary, "-f", str(variant), "-N", str(operations), "-S", str(self.seed),
            "-P", str(artifacts), str(path),
        ]  # fmt: skip
        started = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, timeout=FSX_DEADLINE)
        self.operations += operations
        took = time.monotonic() - started
        if result.returncode == 0:
            self.passed += 1
            print(f"fsx  ok      {variant.stem} seed {self.seed}, {operations} in {took:.1f} s")
            return path.name
        if self._fails_anywhere(command, artifacts):
            self.passed_over += 1
            print(f"fsx  -       {variant.stem} seed {self.seed}: fsx fails on a local disk as well")
            return None
        self.failed += 1
        print(f"fsx  FAILED  {variant.stem} seed {self.seed}: {' '.join(command)}")
        print(tail(result.stdout + result.stderr))
        return None

    def _fails_anywhere(self, command, artifacts):
        """fsx 0.3.2 takes EINVAL for an error when it happens to ask posix_fallocate for no bytes at all."""
        path = artifacts / "local"
        try:
            # The same size at the start, as block mode needs.
            path.write_bytes(b"\0" * (256 << 10) if "fsx-uploaded" in command[-1] else b"")
            return subprocess.run([*command[:-1], str(path)], capture_output=True, timeout=FSX_DEADLINE).returncode != 0
        finally:
            path.unlink(missing_ok=True)

    def one_round(self, operations):
        self.round += 1
        mount = self.lab.megamount(f"fsx-{self.round}", *EAGER)
        names = [self._run(mount, variant, operations) for variant in self.variants]
        expected = {name: digest(mount.mountpoint / name) for name in names if name}
        mount.end()
        # Nothing of the first mount: what is read now is what the server has.
        fresh = self.lab.megamount(f"fsx-{self.round}-again", "--read-only")
        for name, value in expected.items():
            if digest(fresh.mountpoint / name) != value:
                self.failed += 1
                print(f"fsx  FAILED  {name}: not what was written, after upload and new mount")
        fresh.end()
        violations = self.lab.emulator.counters()["violations"]
        if violations:
            self.failed += 1
            print(f"fsx  FAILED  the server objects: {violations[:5]}")

    def run(self, seconds):
        end = time.monotonic() + seconds
        self.one_round(LONG_ROUND if seconds else QUICK_ROUND)
        while not self.failed and time.monotonic() < end:
            self.one_round(LONG_ROUND)
        print(
            f"fsx: {self.passed} runs passed, {self.failed} failures, {self.passed_over} passed over, "
            f"{self.operations} operations, seeds up to {self.seed}"
        )
        return self.failed == 0


class Exclusions:
    """The list of cases that do not apply: a pattern and a reason on each line."""

    def __init__(self, path):
        self.reasons = {}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            pattern, _, reason = line.partition(" ")
            if not reason.strip():
                raise Failure(f"{path.name}:{number}: no reason")
            self.reasons[pattern] = reason.strip()
        self.used = collections.Counter()

    def matches(self, case):
        found = [pattern for pattern in self.reasons if fnmatch.fnmatchcase(case, pattern)]
        self.used.update(found)
        return bool(found)

    def unused(self):
        return [pattern for pattern in self.reasons if not self.used[pattern]]


def pjdfstest_environment(lab):
    """mount(8) would call the helper of the file system's type for a remount, which the kernel does."""
    directory = lab.directory / "bin"
    directory.mkdir(exist_ok=True)
    shim = directory / "mount"
    shim.write_text('#!/bin/sh\nPATH=${PATH#*:}\nexec mount -i "$@"\n')
    shim.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "NO_COLOR": "1"}


def open_to_others(directory):
    """pjdfstest acts as other users, who have to get to the mount."""
    directory.chmod(0o755)
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise Failure(f"{parent} is closed to other users: set TMPDIR to where all may go")


def run_pjdfstest(lab, tools):
    open_to_others(lab.directory)
    mount = lab.megamount("pjdfstest", "--allow-other", "--umask", "022")
    # A place that is another file system, for EXDEV.
    other = lab.directory / "other-file-system"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(other)], check=True)
    config = (HERE / "pjdfstest.toml").read_text()
    remounting = lab.directory / "pjdfstest-erofs.toml"
    remounting.write_text(config.replace("allow_remount = false", "allow_remount = true"))
    try:
        results = pjdfstest(lab, tools, mount.mountpoint, other, HERE / "pjdfstest.toml")
        mount.end()
        mount = lab.megamount("pjdfstest", "--allow-other", "--umask", "022")
        results |= pjdfstest(lab, tools, mount.mountpoint, other, remounting, "erofs")
        mount.end()
    finally:
        subprocess.run(["umount", "-l", str(other)], check=False)
    return report(results)


def pjdfstest(lab, tools, mountpoint, other, config, *patterns):
    """Runs the cases that match the patterns, all without any: verdict and message by name."""
    command = [
        str(tools / "pjdfstest"), "-c", str(config), "-p", str(mountpoint), "-s", str(other), *patterns,
    ]  # fmt: skip
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PJDFSTEST_DEADLINE,
        env=pjdfstest_environment(lab),
        cwd=lab.directory,
    )
    output = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    (lab.directory / f"{config.stem}.out").write_text(output + result.stderr)
    case = re.compile(r"^(\S+::\S+) +(ok|FAILED|skipped)(?:\n\t(.*))?", re.MULTILINE)
    results = {name: (verdict, detail) for name, verdict, detail in case.findall(output)}
    total = re.search(r"(\d+) total$", output, re.MULTILINE)
    if total is None or int(total[1]) != len(results):
        raise Failure(f"pjdfstest did not finish:\n{tail(output + result.stderr)}")
    return results


def report(results):
    """Compares with the list of exclusions and prints what is not as it should be."""
    exclusions = Exclusions(HERE / "pjdfstest.exclude")
    counts = collections.Counter()
    for name, (verdict, detail) in sorted(results.items()):
        excluded = exclusions.matches(name)
        if excluded and verdict == "ok":
            verdict = "excluded, but passes: take it off the list"
            print(f"pjdfstest  {name}: {verdict}")
        elif excluded:
            verdict = "excluded"
        elif verdict != "ok":
            print(f"pjdfstest  {name} {verdict}: {detail}")
        counts[verdict] += 1
    unused = exclusions.unused()
    for pattern in unused:
        print(f"pjdfstest  {pattern}: is on the list and matches no case")
    passes = counts.pop("ok", 0)
    excluded = counts.pop("excluded", 0)
    wrong = sum(counts.values()) + len(unused)
    print(
        f"pjdfstest: {passes} passed, {wrong} failures, {excluded} excluded, {len(results)} in all"
    )
    return wrong == 0


def main():
    parser = argparse.ArgumentParser(prog="scripts/conformance")
    parser.add_argument("--directory", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--binaries", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["fsx", "pjdfstest"])
    parser.add_argument("--seed", type=int, default=0)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", dest="minutes", action="store_const", const=0)
    length.add_argument("--hour", dest="minutes", action="store_const", const=60)
    length.add_argument("--minutes", dest="minutes", type=float, default=1)
    arguments = parser.parse_args()
    stop_on_signals()
    is_root = os.geteuid() == 0
    if arguments.only == "pjdfstest" and not is_root:
        raise Failure("pjdfstest needs root: run sudo scripts/conformance --only pjdfstest")
    lab = Lab(arguments.directory, arguments.binaries)
    is_good = True
    skipped = False
    try:
        lab.start_emulator(in_memory=True, with_rclone=False)
        if arguments.only != "pjdfstest":
            fsx = Fsx(lab, arguments.tools, arguments.seed)
            is_good &= fsx.run(arguments.minutes * 60)
        if arguments.only != "fsx":
            if is_root:
                is_good &= run_pjdfstest(lab, arguments.tools)
            else:
                skipped = True
    finally:
        lab.close()
    if skipped:
        print("SKIPPED: pjdfstest needs root. Run sudo scripts/conformance --only pjdfstest.")
    print("scripts/conformance: " + ("passed" if is_good else "FAILED"))
    return 0 if is_good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"scripts/conformance: {failure}")
