"""A new user's try, end to end, against other Mega clients. Called by scripts/acceptance.

Prints every step with its time. The first difference ends the run with status 1.
"""

import argparse
import contextlib
import filecmp
import os
import pathlib
import shutil
import subprocess
import sys
import time

import lab as labs
import trees

MIB = 1 << 20
SIZES = {
    # Files and large files of each tree. megajs needs most of the time, for the second.
    "full": {
        "one": (2000, [200 * MIB, 100 * MIB + 1, 33 * MIB - 5, 20 * MIB, 12345678]),
        "two": (400, [40 * MIB + 7, 9 * MIB]),
        "three": (600, [8 * MIB, 5 * MIB + 1]),
        "four": (300, [8 * MIB, 5 * MIB + 1]),
    },
    "small": {
        "one": (150, [20 * MIB, 5 * MIB + 1]),
        "two": (80, [10 * MIB]),
        "three": (120, [3 * MIB]),
        "four": (80, [3 * MIB]),
    },
}


class Run:
    def __init__(self, lab, size):
        self.lab, self.size = lab, SIZES[size]
        self.source = lab.directory / "source"
        self.fetched = lab.directory / "fetched"
        self.violations = 0
        self.peer_logins = 0
        self.emulator = None
        self.failures = []

    @contextlib.contextmanager
    def step(self, name):
        started = time.monotonic()
        result = "ok"
        notes = []
        try:
            yield notes.append
        except labs.Failure as failure:
            result = "FAILED"
            self.failures.append(f"{name}: {failure}")
            notes.append(str(failure))
        except BaseException:
            result = "FAILED"
            raise
        finally:
            took = time.monotonic() - started
            print(f"{name:<58} {took:8.2f} s  {result}", flush=True)
            for note in notes:
                print("    " + note.replace("\n", "\n    "), flush=True)
            self.report_violations(name)

    def report_violations(self, name):
        if self.emulator is None:
            return
        counters = self.emulator.counters()
        new = counters["violations"][self.violations :]
        self.violations = counters["violation_count"]
        if new:
            self.failures.append(f"{name}: {len(new)} violations, first: {new[0]}")
            print("    violation: " + "\n    violation: ".join(new[:10]), flush=True)

    def peer(self, run, *arguments):
        """Runs another client, whose logins are not ours."""
        before = self.emulator.counters()["logins"]
        try:
            return run(*arguments)
        finally:
            self.peer_logins += self.emulator.counters()["logins"] - before

    def own_logins(self):
        return self.emulator.counters()["logins"] - self.peer_logins

    def same(self, left, right):
        result = subprocess.run(
            ["diff", "-r", "--no-dereference", str(left), str(right)], capture_output=True
        )
        if result.returncode != 0:
            text = (result.stdout + result.stderr).decode(errors="replace").splitlines()
            raise labs.Failure(f"diff -r: {len(text)} lines\n" + "\n".join(text[:20]))

    def on_server(self, name, wanted):
        """All of a source tree's files are on the server, with their sizes and times."""
        top = self.source / name
        have = self.emulator.files_below("/" + name)
        missing = sorted(set(wanted) - set(have))
        if missing:
            raise labs.Failure(f"{len(missing)} files are not on the server, first {missing[0]!r}")
        wrong = []
        for path in wanted:
            status, node = os.stat(top / path), have[path]
            if node["size"] != status.st_size:
                wrong.append(f"{path!r}: {node['size']} bytes, not {status.st_size}")
            if node["mtime"] != int(status.st_mtime):
                wrong.append(f"{path!r}: mtime {node['mtime']}, not {int(status.st_mtime)}")
        if wrong:
            raise labs.Failure(f"{len(wrong)} differences on the server\n" + "\n".join(wrong[:10]))
        return have

    def surplus(self, note):
        """Old versions and bin entries: copying files once makes none."""
        nodes = self.emulator.nodes()
        versions = [n for n in nodes if n["version_of"] is not None]
        binned = [n for n in nodes if n["in_bin"]]
        note(f"{len(versions)} old versions and {len(binned)} bin entries on the server")
        for node in (versions + binned)[:5]:
            note(f"surplus: {node['path']!r}, {node['size']} bytes")

    def megajs(self, name, to):
        module = labs.PEERS / "node_modules" / "megajs" / "dist" / "main.node-es.mjs"
        script = pathlib.Path(__file__).with_name("megajs_tree.mjs")
        result = subprocess.run(
            ["node", script, self.emulator.url + "/", labs.EMAIL, labs.PASSWORD, name, to],
            env={**self.lab.environment(), "MEGAJS": str(module)},
            capture_output=True, text=True,
        )  # fmt: skip
        if result.returncode != 0:
            raise labs.Failure("megajs: " + result.stderr[-2000:])

    def all(self):
        lab = self.lab
        with self.step("make the source trees") as note:
            for name, (count, large) in self.size.items():
                files, size = trees.make(self.source / name, name, count, large)
                note(f"{name}: {files} files, {size / MIB:.0f} MiB")
        with self.step("start the emulator"):
            self.emulator = lab.start_emulator()
        with self.step("rclone copies the first tree in"):
            self.peer(lab.rclone, "copy", str(self.source / "one"), "m:one", "--create-empty-src-dirs",
                      "--transfers", "8", "--checkers", "8")  # fmt: skip

        with self.step("megamount mounts it") as note:
            mount = lab.megamount("a", "--drain", "10m")
            note(f"resident {labs.peak_memory(mount.pid) / MIB:.0f} MiB")
        at = mount.mountpoint
        with self.step("diff -r finds nothing"):
            self.same(self.source / "one", at / "one")
        with self.step("diff -r again, from the cache"):
            self.same(self.source / "one", at / "one")
        with self.step("cp -a copies the second tree in") as note:
            result = subprocess.run(
                ["cp", "-a", str(self.source / "two"), str(at)], capture_output=True, text=True
            )
            if result.returncode != 0 or result.stderr:
                lines = result.stderr.splitlines()
                raise labs.Failure(f"cp: {len(lines)} lines\n" + "\n".join(lines[:10]))
        with self.step("the second tree reads back at once"):
            self.same(self.source / "two", at / "two")
        with self.step("unmount; the daemon ends when all is uploaded") as note:
            note(f"peak resident {labs.peak_memory(mount.pid) / MIB:.0f} MiB")
            mount.end()
        with self.step("all on the server, mtimes in attribute c") as note:
            self.on_server("two", trees.files_of(self.source / "two"))
            self.surplus(note)
        for client, fetch in (("rclone", self.fetch_with_rclone), ("megajs", self.megajs)):
            with self.step(f"{client} downloads the second tree, identical"):
                to = self.fetched / client / "two"
                to.parent.mkdir(parents=True, exist_ok=True)
                self.peer(fetch, "two", str(to))
                self.same_files("two", to)
                shutil.rmtree(to)

        # Once with all that was written still waiting here, once with uploads under way.
        self.survive_kill("three")
        self.survive_kill("four", "--write-back", "0s")

        with self.step("everything through one more mount, read-only"):
            mount = lab.megamount("a", "--read-only")
            for name in ("one", "two"):
                self.same(self.source / name, mount.mountpoint / name)
            mount.end()
        with self.step("no violations, one login") as note:
            counters = self.emulator.counters()
            note(f"{counters['violation_count']} violations, {self.own_logins()} logins of megamount, "
                 f"{self.peer_logins} of other clients")  # fmt: skip
            if counters["violation_count"]:
                raise labs.Failure(f"violations: {counters['violations'][:5]}")
            if self.own_logins() != 1:
                raise labs.Failure(f"megamount logged in {self.own_logins()} times")
            if counters["journal_error"]:
                raise labs.Failure(f"the emulator could not write: {counters['journal_error']}")

    def fetch_with_rclone(self, name, to):
        self.lab.rclone("copy", f"m:{name}", to, "--create-empty-src-dirs", "--transfers", "8")

    def same_files(self, name, other):
        """Compares whole trees."""
        self.same(self.source / name, other)

    def same_content(self, name, other, paths, times=True):
        """Compares these files, and their times when the other side keeps them."""
        wrong = []
        for path in paths:
            source, copy = self.source / name / path, other / path
            try:
                if not filecmp.cmp(source, copy, shallow=False):
                    wrong.append(f"{path!r} differs: {copy.stat().st_size} bytes of {source.stat().st_size}")
                elif times and int(source.stat().st_mtime) != int(copy.stat().st_mtime):
                    wrong.append(f"{path!r} has mtime {copy.stat().st_mtime}")
            except OSError as error:
                wrong.append(f"{path!r}: {error.strerror}")
        if wrong:
            raise labs.Failure(f"{len(wrong)} of {len(paths)} files\n" + "\n".join(wrong[:10]))

    def survive_kill(self, name, *options):
        """Kills the daemon while a tree is copied in: no file may be missing that was closed."""
        with self.step("mount again"):
            mount = self.lab.megamount("a", "--drain", "10m", *options)
        closed = self.kill_while_copying(mount, name)
        with self.step("mount after kill -9"):
            mount = self.lab.megamount("a", "--drain", "10m", *options)
        with self.step("nothing whose close returned is missing"):
            self.same_content(name, mount.mountpoint / name, closed)
        with self.step("the queue drains"):
            mount.end()
        with self.step("all of it on the server") as note:
            self.on_server(name, closed)
            self.surplus(note)
        with self.step("rclone downloads it, identical"):
            to = self.fetched / name
            self.peer(self.fetch_with_rclone, name, str(to))
            self.same_content(name, to, closed, times=False)

    def kill_while_copying(self, mount, name):
        """Copies a tree and kills the daemon when about half of it is in; what had been closed."""
        journal = self.lab.directory / f"closed-{name}"
        journal.touch()
        half = self.size[name][0] // 2
        closed = []
        with self.step(f"kill -9 in the middle of copying tree {name}") as note:
            script = pathlib.Path(__file__).with_name("copier.py")
            copier = subprocess.Popen(
                [sys.executable, script, self.source / name, mount.mountpoint / name, journal],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                labs.wait_until(
                    "half of the tree",
                    lambda: journal.read_bytes().count(b"\0") >= half or copier.poll() is not None,
                    300,
                    pause=0.002,
                )
                mount.kill()
                said, _ = copier.communicate(timeout=60)
            finally:
                copier.kill()
                copier.wait()
            if copier.returncode != 3 or "copier:" not in said:
                raise labs.Failure(f"the copy was not interrupted: {copier.returncode} {said}")
            closed = [os.fsdecode(p) for p in journal.read_bytes().split(b"\0")[:-1]]
            on_server = len(self.emulator.files_below("/" + name))
            note(f"{len(closed)} files were closed, {on_server} of them were on the server")
        return closed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--binaries", required=True)
    parser.add_argument("--size", choices=SIZES, default="full")
    options = parser.parse_args()
    labs.stop_on_signals()
    lab = labs.Lab(options.directory, options.binaries)
    run = Run(lab, options.size)
    started = time.monotonic()
    try:
        run.all()
    except (labs.Failure, OSError, subprocess.SubprocessError) as failure:
        run.failures.append(repr(failure))
    finally:
        lab.close()
    print(f"{'in all':<58} {time.monotonic() - started:8.2f} s")
    if run.failures:
        print("\nacceptance: FAILED")
        for failure in run.failures:
            print("  " + failure.replace("\n", "\n  "))
        for log in sorted(lab.directory.glob("megamount-*.log")):
            lines = log.read_text(errors="replace").splitlines()
            bad = [line for line in lines if "ERROR" in line or "WARN" in line]
            print(f"{log.name}: {len(bad)} warnings and errors")
            for line in bad[:15]:
                print("  " + line)
        return 1
    print("\nacceptance: all of it holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
