"""Accounts of any size beside rclone mount. Called by bench.py.

A generated account has 50 nodes per folder, and one folder of a tenth of all nodes (100,000 at most).
Each contender mounts it twice with the same state: cold, with everything that is measured of a
running mount, then warm. Only megamount is told of changes by others; rclone sees none of them.
The limit of a cold start is the same reply, fetched by curl and parsed by a program that keeps nothing
(crates/megamount/examples/scan_json.rs) or by jq, whichever is faster.
"""

import os
import random
import statistics
import subprocess
import sys
import threading
import time

import lab as labs

MIB = 1 << 20
UNITS = {
    "cold start": ("s", False),
    "cold start, processor": ("s", False),
    "cold start, peak memory": ("MiB", False),
    "state on disk": ("MiB", False),
    "find": ("/s", True),
    "find, processor": ("s", False),
    "find again": ("/s", True),
    "find with sizes and times": ("/s", True),
    "after find, memory": ("MiB", False),
    "ls -l of the large folder": ("s", False),
    "warm start to first ls": ("s", False),
    "warm start, processor": ("s", False),
    "warm start, memory": ("MiB", False),
    "remote change seen, p50": ("ms", False),
    "remote change seen, p99": ("ms", False),
    "remote changes in a burst": ("/s", True),
    "longest stat meanwhile": ("ms", False),
    "curl and scan": ("s", False),
}
# Remote changes made one by one, and at once.
CHANGES = 200
BURST = 10_000
# Seconds; a mount of ten million nodes takes its time, most of all rclone's.
PATIENCE = 3600


def shape(nodes):
    """Folders, files in each, and files in the one large folder."""
    large = min(100_000, nodes // 10)
    folders = max(1, nodes // 50)
    return folders, (nodes - large) // folders - 1, large


def populate(bench, nodes):
    folders, files, large = shape(nodes)
    def tree(parent, folders, files):
        return {"kind": "generated", "parent": parent, "folders": folders, "fanout": 20, "files_per_folder": files}

    fixtures = [tree("/tree", folders, files), tree("/large", 1, large), {"kind": "folder", "path": "/live"}]
    bench.emulator.control("populate", fixtures, email=labs.EMAIL)
    # /tree, /large, /live, and what is in the first two.
    return 3 + folders * (files + 1) + 1 + large


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def steady(pid):
    """Memory once what is free has gone back to the system, which takes the allocator a second or two."""
    time.sleep(3)
    return resident(pid)


def timed(work):
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def size_on_disk(paths):
    files = [path for top in paths for path in top.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks for path in files) * 512 / MIB


def count_lines(*command):
    output = subprocess.Popen(command, stdout=subprocess.PIPE)
    count = sum(block.count(b"\n") for block in iter(lambda: output.stdout.read(MIB), b""))
    if output.wait() != 0:
        raise labs.Failure(f"{command[0]} ended with {output.returncode}")
    return count


def find(mount, nodes, *arguments):
    """Every entry, as find prints them."""
    took, count = timed(lambda: count_lines("find", str(mount.mountpoint), *arguments))
    # The mount point itself is an entry too.
    if count != nodes + 1:
        raise labs.Failure(f"find saw {count} entries of {nodes + 1}")
    return count / took


def list_large(mount, large):
    took, count = timed(lambda: count_lines("ls", "-l", str(mount.mountpoint / "large" / "folder 000000")))
    if count != large + 1:
        raise labs.Failure(f"ls saw {count} lines of {large + 1}")
    return took


def change(bench, number):
    fixture = {"kind": "folder", "path": f"/live/one {number:05}"}
    bench.emulator.control("populate", [fixture], email=labs.EMAIL)


def latencies(bench, mount):
    """Milliseconds from before a change is asked for until stat sees it, one change at a time."""
    found = []
    for number in range(CHANGES):
        path = mount.mountpoint / "live" / f"one {number:05}"
        # The kernel remembers that there is no such name.
        if path.exists():
            raise labs.Failure(f"{path} is there already")
        started = time.perf_counter()
        change(bench, number)
        labs.wait_until("the change", path.exists, 30, pause=0.0002)
        found.append((time.perf_counter() - started) * 1e3)
    found.sort()
    return {
        "remote change seen, p50": statistics.median(found),
        "remote change seen, p99": found[len(found) * 99 // 100],
    }


def burst(bench, mount):
    """Many changes at once while somebody else looks at names; the longest of these looks."""
    done, longest, failed = threading.Event(), [0.0], []

    def look():
        draw = random.Random(5)
        while not done.is_set():
            # A name that nobody has asked for yet goes to the daemon.
            path = mount.mountpoint / "tree" / f"none {draw.random()}"
            took, exists = timed(path.exists)
            longest[0] = max(longest[0], took)
            if exists:
                failed.append(path)

    fetched = bench.emulator.counters()["commands"].get("f", 0)
    fixtures = [{"kind": "folder", "path": f"/live/burst {number:05}"} for number in range(BURST)]
    looker = threading.Thread(target=look)
    looker.start()
    try:
        started = time.perf_counter()
        bench.emulator.control("populate", fixtures, email=labs.EMAIL)
        last = mount.mountpoint / "live" / f"burst {BURST - 1:05}"
        labs.wait_until("the last change", last.exists, 300, pause=0.01)
        took = time.perf_counter() - started
    finally:
        done.set()
        looker.join()
    seen = sum(name.startswith("burst") for name in os.listdir(mount.mountpoint / "live"))
    if failed or seen != BURST:
        raise labs.Failure(f"{seen} changes of {BURST} are seen")
    if bench.emulator.counters()["commands"].get("f", 0) != fetched:
        raise labs.Failure("the tree was fetched again")
    return {"remote changes in a burst": BURST / took, "longest stat meanwhile": longest[0] * 1e3}


def spawn(bench, name, number, memory):
    if name == "megamount":
        options = ["--memory", memory] if memory else []
        return bench.lab.spawn_megamount(f"tree{number}", *options, deadline=PATIENCE)
    return bench.lab.spawn_rclone(f"tree{number}", deadline=PATIENCE)


def measure(bench, name, nodes, number, memory):
    """All figures of one contender."""
    large = shape(nodes)[2]
    mount, took = spawn(bench, name, number, memory)
    answer = {
        "cold start": took,
        "cold start, processor": labs.processor_time(mount.pid),
        "cold start, peak memory": labs.peak_memory(mount.pid) / MIB,
    }
    if name == "megamount":
        answer["state on disk"] = size_on_disk([bench.lab.directory / f"megamount-tree{number}"])
    answer["ls -l of the large folder"] = list_large(mount, large)
    busy = labs.processor_time(mount.pid)
    answer["find"] = find(mount, nodes)
    answer["find, processor"] = labs.processor_time(mount.pid) - busy
    answer["find again"] = find(mount, nodes)
    answer["find with sizes and times"] = find(mount, nodes, "-printf", "%s %T@ %p\\n")
    answer["after find, memory"] = steady(mount.pid)
    if name == "megamount":
        answer |= latencies(bench, mount)
        answer |= burst(bench, mount)
    mount.end()
    mount, took = spawn(bench, name, number, memory)
    answer |= {
        "warm start to first ls": took,
        "warm start, processor": labs.processor_time(mount.pid),
        "warm start, memory": resident(mount.pid),
    }
    mount.end()
    return answer


def scan(bench):
    """Fetching the same reply and parsing it without keeping anything."""
    sid = bench.emulator.control("session", {}, email=labs.EMAIL)["sid"]
    reply = bench.lab.directory / "f.json"
    url = f"{bench.emulator.url}/cs?id=1&sid={sid}"
    command = ["curl", "-sS", "-o", reply, "-d", '[{"a":"f","c":1}]', url]
    fetched, _ = timed(lambda: subprocess.run(command, check=True))
    program = bench.lab.binaries / "examples" / "scan_json"
    parsed = float(subprocess.run([program, reply], check=True, capture_output=True).stdout)
    try:
        by_jq, _ = timed(lambda: subprocess.run(["jq", "-c", "length", reply], check=True, capture_output=True))
        parsed = min(parsed, by_jq)
    except FileNotFoundError:
        pass
    reply.unlink()
    return fetched + parsed


def run(bench, options):
    """{account: {measure: {contender: [values]}}}, each round on an account of its own."""
    results = {}
    for nodes in options.nodes or [10_000, 1_000_000]:
        found = results.setdefault(f"{nodes:,} nodes", {})
        for number in range(options.rounds):
            bench.emulator = bench.lab.replace_emulator(f"emulator-{nodes}-{number}")
            count = populate(bench, nodes)
            # megamount comes last: the changes that it is told of would be in rclone's way.
            for name in ["megamount"] if options.no_rclone else ["rclone", "megamount"]:
                answer = measure(bench, name, count, f"{nodes}-{number}", options.memory)
                for key, value in answer.items():
                    found.setdefault(key, {}).setdefault(name, []).append(value)
                shown = {key: round(value, 2) for key, value in answer.items()}
                print(f"  {nodes} nodes: {name} {shown}", file=sys.stderr, flush=True)
            found.setdefault("curl and scan", {}).setdefault("limit", []).append(scan(bench))
    return results
