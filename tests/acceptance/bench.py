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

import bench_read
import bench_tree
import lab as labs

MIB = 1 << 20
# Files that measure_create makes each time.
CREATED = 5000
# A number's unit, and whether more of it is better.
UNITS = {
    "mount": ("s", False),
    "cold read": ("MB/s", True),
    "cold read, peak memory": ("MiB", False),
    "first byte": ("s", False),
    "write to close": ("MB/s", True),
    "upload, close to server": ("MB/s", True),
    "upload, open to server": ("MB/s", True),
    "upload, processor": ("s/GB", False),
    "upload, the emulator's": ("s/GB", False),
    "upload, peak memory": ("MiB", False),
    "small files, to close": ("files/s", True),
    "small files, to server": ("files/s", True),
    "create, long write-back": ("files/s", True),
    "create, write-back 0": ("files/s", True),
    "small files, peak memory": ("MiB", False),
    "idle memory": ("MiB", False),
}


class Megamount:
    """A fresh megamount; the same remote, so that login is part of the first mount only."""

    name = "megamount"

    def __init__(self, lab):
        self.lab, self.numbers = lab, itertools.count()

    def mount(self, write_back="0s", drain="10m"):
        # Each has its own state: what is measured is a first mount, with login.
        options = ["--write-back", write_back, "--drain", drain]
        return self.lab.spawn_megamount(f"{next(self.numbers)}", *options)

    def caches(self):
        return self.lab.directory.glob("megamount-*/cache")


class Rclone:
    """rclone mount with its disk cache, otherwise as it comes."""

    name = "rclone"

    def __init__(self, lab):
        self.lab, self.numbers = lab, itertools.count()

    def mount(self, write_back="0s", drain=None):
        return self.lab.spawn_rclone(f"r{next(self.numbers)}", "--vfs-write-back", write_back)

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
    emulator = bench.emulator.process.pid
    opened = time.perf_counter()
    file = open(mount.mountpoint / "bench" / name, "xb", buffering=0)
    for number in range(bench.size // MIB):
        view = memoryview(number.to_bytes(8, "big") + block[8:])
        while view:
            view = view[file.write(view) :]
    written = time.perf_counter()
    busy = [labs.processor_time(pid) for pid in (mount.pid, emulator)]
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
    busy = [labs.processor_time(pid) - before for pid, before in zip((mount.pid, emulator), busy)]
    numbers = {
        "write to close": bench.size / (closed - opened) / 1e6,
        "upload, close to server": bench.size / (done - written) / 1e6,
        "upload, open to server": bench.size / (done - opened) / 1e6,
        "upload, processor": busy[0] / bench.size * 1e9,
        "upload, the emulator's": busy[1] / bench.size * 1e9,
        "upload, peak memory": finish(contender, mount),
    }
    # The emulator has it in memory, and the next contender needs that.
    bench.lab.rclone("deletefile", "--mega-hard-delete", f"m:bench/{name}")
    return numbers


def measure_small(bench, contender):
    mount, _ = contender.mount()
    name = f"small-{contender.name}-{next(bench.serial)}"
    source, count = bench.small_source(contender)
    total = sum(entry.stat().st_size for entry in os.scandir(source))
    sent = bench.emulator.counters()["bytes_up"]
    started = time.perf_counter()
    subprocess.run(["cp", "-r", source, mount.mountpoint / "bench" / name], check=True)
    copied = time.perf_counter()

    def all_there():
        below = f"/bench/{name}/"
        return sum(node["path"].startswith(below) for node in bench.emulator.live()) >= count

    def all_sent():
        return bench.emulator.counters()["bytes_up"] - sent >= total

    # Looking at the whole tree costs much of what is measured, so it comes last.
    labs.wait_until("the small files' bytes", all_sent, 1800, pause=0.05)
    labs.wait_until("the small files", all_there, 900, pause=0.1)
    done = time.perf_counter()
    return {
        "small files, to close": count / (copied - started),
        "small files, to server": count / (done - started),
        "small files, peak memory": finish(contender, mount),
    }


def create(bench, contender, write_back):
    """Files made by one process in one folder, each written and closed, per second."""
    mount, _ = contender.mount(write_back, drain="0s")
    name = f"create-{contender.name}-{next(bench.serial)}"
    os.mkdir(mount.mountpoint / "bench" / name)
    folder = os.open(mount.mountpoint / "bench" / name, os.O_RDONLY | os.O_DIRECTORY)
    block = os.urandom(4096)
    started = time.perf_counter()
    for number in range(CREATED):
        file = os.open(f"{number:05}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
        os.write(file, block)
        os.close(file)
    took = time.perf_counter() - started
    os.close(folder)
    finish(contender, mount)
    return CREATED / took


def measure_create(bench, contender):
    return {
        "create, long write-back": create(bench, contender, "10m"),
        "create, write-back 0": create(bench, contender, "0s"),
    }


SUBCOMMANDS = {
    "mount": [measure_mount, measure_read, measure_upload, measure_small, measure_create],
}
PARTS = {part.__name__.removeprefix("measure_"): part for parts in SUBCOMMANDS.values() for part in parts}


class Bench:
    def __init__(self, lab, options):
        self.lab, self.size = lab, options.size * MIB
        self.counts = {"megamount": options.files, "rclone": options.rclone_files or options.files}
        self.serial = itertools.count()
        self.emulator = lab.start_emulator(in_memory=True)
        knobs = {
            "quota": 1 << 42,
            "latency_ms": options.latency,
            "mac_check": options.mac_check,
            # Unchecked uploads need not be there either: finding memory for them costs more than they.
            "keep_content": options.mac_check,
        }
        self.emulator.control("knobs", knobs)
        self.emulator.control("account", {"quota": 1 << 42}, email=labs.EMAIL)
        if options.subcommand == "tree":
            return
        content = {"pattern": {"size": self.size, "seed": 1}}
        self.emulator.control(
            "populate",
            [
                {"kind": "folder", "path": "/bench"},
                {"kind": "file", "path": "/bench/large.bin", "content": content, "mtime": 1},
            ],
            email=labs.EMAIL,
        )
        for count in set(self.counts.values()):
            folder = lab.directory / f"small-source-{count}"
            folder.mkdir()
            for number in range(count):
                size = options.file_size or 1024 + number * 15
                (folder / f"{number:05}.bin").write_bytes(os.urandom(size))

    def small_source(self, contender):
        """The folder that this contender copies, and how many files are in it."""
        count = self.counts[contender.name]
        return self.lab.directory / f"small-source-{count}", count

    def describe(self):
        load = os.getloadavg()[0]
        checks = "on" if self.emulator.control("knobs")["mac_check"] else "off"
        text = f"load {load:.1f} before the first measurement; the emulator's MAC checks are {checks}"
        text += "" if checks == "on" else " and it does not keep what is uploaded"
        if len(set(self.counts.values())) > 1:
            copied = ", ".join(f"{name} {count}" for name, count in self.counts.items())
            text += f"; small files copied: {copied}"
        return text


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


def block_table(results, units):
    """One block per profile or account; what is a limit stands alone, as does what rclone cannot do."""
    for profile, measures in results.items():
        print(f"\n{profile:<28} {'unit':<8} {'megamount':>10} {'rclone':>10} {'ratio':>8}")
        for measure, values in measures.items():
            unit, more_is_better = units[measure]
            medians = {name: statistics.median(found) for name, found in values.items()}
            if len(medians) == 1:
                print(f"{measure:<28} {unit:<8} {next(iter(medians.values())):>10.3g}")
                continue
            own, other = medians["megamount"], medians["rclone"]
            ratio = own / other if more_is_better else other / max(own, 1e-9)
            print(f"{measure:<28} {unit:<8} {own:>10.3g} {other:>10.3g} {ratio:>7.2f}x")
    print("\nA ratio above 1 is in megamount's favour.")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("subcommand", choices=[*SUBCOMMANDS, "read", "tree"])
    parser.add_argument("--directory", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--binaries", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file")
    parser.add_argument("--files", type=int, default=1000, help="number of small files")
    parser.add_argument("--file-size", type=int, help="bytes of each small file, instead of 1 KiB and more")
    parser.add_argument("--rclone-files", type=int, help="as --files for rclone, whose rate is constant")
    parser.add_argument("--no-mac-check", dest="mac_check", action="store_false",
                        help="the emulator does not check what was uploaded")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help="the median counts")
    parser.add_argument("--latency", type=int, default=0, help="milliseconds added to each request")
    parser.add_argument("--only", choices=PARTS, action="append", help="these measurements alone")
    parser.add_argument("--read", choices=bench_read.PARTS, action="append", help="read: these alone")
    parser.add_argument("--profile", choices=bench_read.PROFILES, action="append", help="read: these alone")
    parser.add_argument("--nodes", type=int, action="append", help="tree: accounts of this many nodes alone")
    parser.add_argument("--memory", help="tree: megamount's --memory")
    parser.add_argument("--no-rclone", action="store_true", help="tree: megamount alone")
    options = parser.parse_args()
    labs.stop_on_signals()
    parts = [PARTS[name] for name in options.only or []] or SUBCOMMANDS.get(options.subcommand)
    lab = labs.Lab(pathlib.Path(options.directory), options.binaries)
    try:
        bench = Bench(lab, options)
        conditions = bench.describe()
        if options.subcommand == "read":
            contenders = [Megamount(lab), Rclone(lab)]
            results = bench_read.run(bench, contenders, options, finish)
        elif options.subcommand == "tree":
            results = bench_tree.run(bench, options)
        else:
            results = run(bench, parts, options.rounds)
    except labs.Failure as failure:
        print(f"bench: FAILED: {failure}", file=sys.stderr)
        return 1
    finally:
        lab.close()
    blocks = {"read": bench_read.UNITS, "tree": bench_tree.UNITS}
    if options.subcommand in blocks:
        block_table(results, blocks[options.subcommand])
    else:
        table(results)
    print(conditions)
    asked = {name: value for name, value in vars(options).items() if name not in ("directory", "binaries")}
    print(json.dumps({**asked, "processors": os.cpu_count(), "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
