"""Measures megamount beside other ways to the same account. Called by scripts/bench.

Each subcommand is a list of measurements; a measurement answers numbers for one contender, all
contenders stand on the same emulator in the same run, and every measurement gets a fresh daemon with
an empty cache. Prints a table with ratios, then one line of JSON.
"""

import argparse
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import lab as labs

MIB = 1 << 20
# A number's unit, and whether more of it is better.
UNITS = {
    "mount": ("s", False),
    "cold read": ("MB/s", True),
    "cold read, peak memory": ("MiB", False),
    "first byte": ("s", False),
    "write to close": ("MB/s", True),
    "upload, close to server": ("MB/s", True),
    "upload, open to server": ("MB/s", True),
    "upload, peak memory": ("MiB", False),
    "small files, to close": ("files/s", True),
    "small files, to server": ("files/s", True),
    "small files, peak memory": ("MiB", False),
    "idle memory": ("MiB", False),
}


class Megamount:
    """A fresh megamount; the same remote, so that login is part of the first mount only."""

    name = "megamount"

    def __init__(self, lab):
        self.lab, self.numbers = lab, itertools.count()

    def mount(self):
        # Each has its own state: what is measured is a first mount, with login.
        return self.lab.spawn_megamount(f"{next(self.numbers)}", "--write-back", "0s", "--drain", "10m")

    def caches(self):
        return self.lab.directory.glob("megamount-*/cache")


class Rclone:
    """rclone mount with its disk cache, otherwise as it comes."""

    name = "rclone"

    def __init__(self, lab):
        self.lab, self.numbers = lab, itertools.count()

    def mount(self):
        return self.lab.spawn_rclone(f"r{next(self.numbers)}", "--vfs-write-back", "0s")

    def caches(self):
        return self.lab.directory.glob("rclone-r*")


def finish(contender, mount):
    """Peak memory in MiB, then the mount's end and its cache's: the disk is not for all of them."""
    peak = labs.peak_memory(mount.pid) / MIB
    mount.end()
    for cache in contender.caches():
        shutil.rmtree(cache, ignore_errors=True)
    return peak


def measure_mount(bench, contender):
    mount, took = contender.mount()
    return {"mount": took, "idle memory": finish(contender, mount)}


def measure_read(bench, contender):
    mount, _ = contender.mount()
    started = time.perf_counter()
    first, count = None, 0
    buffer = bytearray(MIB)
    with open(mount.mountpoint / "bench" / "large.bin", "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            first = first or time.perf_counter() - started
            count += got
    took = time.perf_counter() - started
    if count != bench.size:
        raise labs.Failure(f"{contender.name}: read {count} bytes of {bench.size}")
    return {
        "cold read": count / took / 1e6,
        "first byte": first,
        "cold read, peak memory": finish(contender, mount),
    }


def measure_upload(bench, contender):
    mount, _ = contender.mount()
    name = f"upload-{contender.name}-{next(bench.serial)}.bin"
    block = os.urandom(MIB)
    opened = time.perf_counter()
    file = open(mount.mountpoint / "bench" / name, "xb", buffering=0)
    for number in range(bench.size // MIB):
        view = memoryview(number.to_bytes(8, "big") + block[8:])
        while view:
            view = view[file.write(view) :]
    written = time.perf_counter()
    # rclone uploads within close, megamount after it: the clock starts before.
    file.close()
    closed = time.perf_counter()

    def visible():
        return any(
            node["path"] == f"/bench/{name}" and node["size"] == bench.size
            for node in bench.emulator.live()
        )

    labs.wait_until("the upload", visible, 900, pause=0.01)
    done = time.perf_counter()
    return {
        "write to close": bench.size / (closed - opened) / 1e6,
        "upload, close to server": bench.size / (done - written) / 1e6,
        "upload, open to server": bench.size / (done - opened) / 1e6,
        "upload, peak memory": finish(contender, mount),
    }


def measure_small(bench, contender):
    mount, _ = contender.mount()
    name = f"small-{contender.name}-{next(bench.serial)}"
    started = time.perf_counter()
    subprocess.run(["cp", "-r", bench.small, mount.mountpoint / "bench" / name], check=True)
    copied = time.perf_counter()

    def all_there():
        below = f"/bench/{name}/"
        return sum(node["path"].startswith(below) for node in bench.emulator.live()) >= bench.count

    labs.wait_until("the small files", all_there, 900, pause=0.1)
    done = time.perf_counter()
    return {
        "small files, to close": bench.count / (copied - started),
        "small files, to server": bench.count / (done - started),
        "small files, peak memory": finish(contender, mount),
    }


SUBCOMMANDS = {
    "mount": [measure_mount, measure_read, measure_upload, measure_small],
}
PARTS = {part.__name__.removeprefix("measure_"): part for parts in SUBCOMMANDS.values() for part in parts}


class Bench:
    def __init__(self, lab, options):
        self.lab, self.size, self.count = lab, options.size * MIB, options.files
        self.serial = itertools.count()
        self.small = lab.directory / "small-source"
        self.emulator = lab.start_emulator(in_memory=True)
        self.emulator.control("knobs", {"quota": 1 << 42, "latency_ms": options.latency})
        self.emulator.control("account", {"quota": 1 << 42}, email=labs.EMAIL)
        content = {"pattern": {"size": self.size, "seed": 1}}
        self.emulator.control(
            "populate",
            [
                {"kind": "folder", "path": "/bench"},
                {"kind": "file", "path": "/bench/large.bin", "content": content, "mtime": 1},
            ],
            email=labs.EMAIL,
        )
        self.small.mkdir()
        for number in range(self.count):
            (self.small / f"{number:05}.bin").write_bytes(os.urandom(1024 + number * 15))


def run(bench, parts, rounds):
    """{measure: {contender: [values]}}; the contenders take turns, so that a machine that slows
    down slows both."""
    contenders = [Megamount(bench.lab), Rclone(bench.lab)]
    results = {}
    for part in parts:
        for number in range(rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                before = bench.emulator.counters()["violation_count"]
                for measure, value in part(bench, contender).items():
                    values = results.setdefault(measure, {}).setdefault(contender.name, [])
                    values.append(value)
                print(f"  {part.__name__.removeprefix('measure_')}: {contender.name}", file=sys.stderr)
                if contender.name == "megamount" and bench.emulator.counters()["violation_count"] > before:
                    raise labs.Failure(f"violations: {bench.emulator.counters()['violations'][-3:]}")
    return results


def table(results):
    print(f"\n{'':<26} {'unit':<8} {'megamount':>10} {'rclone':>10} {'ratio':>8}")
    for measure, values in results.items():
        unit, more_is_better = UNITS[measure]
        own, other = (statistics.median(values[name]) for name in ("megamount", "rclone"))
        ratio = own / other if more_is_better else other / own
        print(f"{measure:<26} {unit:<8} {own:>10.3g} {other:>10.3g} {ratio:>7.2f}x")
    print("\nA ratio above 1 is in megamount's favour.")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("subcommand", choices=SUBCOMMANDS)
    parser.add_argument("--directory", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--binaries", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file")
    parser.add_argument("--files", type=int, default=1000, help="number of small files")
    parser.add_argument("--rounds", type=int, default=1, help="the median counts")
    parser.add_argument("--latency", type=int, default=0, help="milliseconds added to each request")
    parser.add_argument("--only", choices=PARTS, action="append", help="these measurements alone")
    options = parser.parse_args()
    labs.stop_on_signals()
    parts = [PARTS[name] for name in options.only or []] or SUBCOMMANDS[options.subcommand]
    lab = labs.Lab(pathlib.Path(options.directory), options.binaries)
    try:
        results = run(Bench(lab, options), parts, options.rounds)
    except labs.Failure as failure:
        print(f"bench: FAILED: {failure}", file=sys.stderr)
        return 1
    finally:
        lab.close()
    table(results)
    print(json.dumps({"subcommand": options.subcommand, "size_mib": options.size, "files": options.files,
                      "latency_ms": options.latency, "processors": os.cpu_count(), "results": results}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
