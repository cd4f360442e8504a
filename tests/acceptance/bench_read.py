"""The read side beside rclone and a plain parallel downloader, which is the limit. Called by bench.py.

Each measurement gets a fresh mount with an empty cache; small files are walked in the order of their
names. The plain downloader knows the address already and drops what it gets: nothing that decrypts,
checks and keeps the bytes can be faster over the same line. The limit of warm reads is a file system of
one file in memory (crates/megamount/examples/memory_file.rs).
"""

import http.client
import mmap
import os
import pathlib
import random
import subprocess
import sys
import threading
import time
import urllib.parse

import lab as labs

MIB = 1 << 20
UNITS = {
    "sequential, cold": ("MB/s", True),
    "sequential, processor": ("s/GB", False),
    "sequential, peak memory": ("MiB", False),
    "again, from the page cache": ("MB/s", True),
    "again, from the disk cache": ("MB/s", True),
    "first byte, cold": ("ms", False),
    "moved for the first byte": ("MiB", False),
    "four files at a time, cold": ("MB/s", True),
    "random 4 KiB, cold": ("reads/s", True),
    "small files read, cold": ("files/s", True),
    "fifty readers, cold": ("MB/s", True),
    "fifty readers, peak memory": ("MiB", False),
    "plain downloader": ("MB/s", True),
    "a file in memory, read": ("MB/s", True),
    "a file in memory, again": ("MB/s", True),
}
PROFILES = {
    "loopback": {},
    "50ms": {"latency_ms": 50, "down_per_connection": 20_000_000, "down_total": 100_000_000},
    "200ms": {"latency_ms": 200},
}
# One download request in a hundred fails.
FAILING = {"at": "dl", "probability": 0.01, "do": "status", "code": 500}


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drain(path):
    """Reads a file to its end; its length, and when the first bytes came."""
    buffer = bytearray(MIB)
    started, first, count = time.perf_counter(), None, 0
    with open(path, "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            first = first or time.perf_counter() - started
            count += got
    return count, first


def timed(work):
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def have_memory(bench):
    """A virtual machine may get memory from its host when it is first touched, which can cost more than the read
    that fills it, and gives back what is free for some seconds. So it is touched before, for every contender."""
    piece = bytes(MIB)
    memory = mmap.mmap(-1, 3 * bench.size)
    for offset in range(0, len(memory) - MIB + 1, MIB):
        memory[offset : offset + MIB] = piece
    memory.close()


def drop_pages(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sequential(bench, mount):
    path = mount.mountpoint / "bench" / "large.bin"
    have_memory(bench)
    before = processor_seconds(mount.pid)
    took, (count, _) = timed(lambda: drain(path))
    if count != bench.size:
        raise labs.Failure(f"read {count} bytes of {bench.size}")
    answer = {
        "sequential, cold": count / took / 1e6,
        "sequential, processor": (processor_seconds(mount.pid) - before) / (count / 1e9),
        "sequential, peak memory": labs.peak_memory(mount.pid) / MIB,
    }
    # Until the file is verified, each open drops the pages, and the first one after that may.
    time.sleep(3)
    drain(path)
    again, _ = timed(lambda: drain(path))
    answer["again, from the page cache"] = count / again / 1e6
    drop_pages(path)
    have_memory(bench)
    dropped, _ = timed(lambda: drain(path))
    answer["again, from the disk cache"] = count / dropped / 1e6
    return answer


def first_byte(bench, mount):
    # The connections are open and the session is known, as in a mount that is in use.
    drain(mount.mountpoint / "bench" / "warm.bin")
    before = bench.emulator.counters()["bytes_down"]
    descriptor = os.open(mount.mountpoint / "bench" / "large.bin", os.O_RDONLY)
    try:
        took, _ = timed(lambda: os.pread(descriptor, 1, 0))
    finally:
        os.close(descriptor)
    # What is still on its way counts as well.
    time.sleep(1)
    moved = bench.emulator.counters()["bytes_down"] - before
    return {"first byte, cold": took * 1e3, "moved for the first byte": moved / MIB}


def together(mount, kind, number, size):
    """Reads files at the same time; MB/s of all."""
    counts = []
    paths = [mount.mountpoint / "bench" / f"{kind}{n}.bin" for n in range(number)]
    threads = [threading.Thread(target=lambda path=path: counts.append(drain(path)[0])) for path in paths]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if sum(counts) != number * size:
        raise labs.Failure(f"read {counts}")
    return sum(counts) / took / 1e6


def four(bench, mount):
    have_memory(bench)
    return {"four files at a time, cold": together(mount, "quarter", 4, bench.size // 4)}


def fifty(bench, mount):
    speed = together(mount, "fiftieth", READERS, bench.size // READERS)
    return {
        "fifty readers, cold": speed,
        "fifty readers, peak memory": labs.peak_memory(mount.pid) / MIB,
    }


def in_memory(bench):
    """What the kernel and the library allow: the same reads of a file that is in memory."""
    mountpoint = bench.lab.directory / "mnt-memory"
    mountpoint.mkdir(exist_ok=True)
    command = [bench.lab.binaries / "examples" / "memory_file", mountpoint, str(bench.size // MIB)]
    process = subprocess.Popen(command)
    bench.lab.mounts.append(labs.Mount(mountpoint, process.pid, process))
    path = mountpoint / "file"
    labs.wait_until("the file in memory", path.exists, 60)
    drain(path)
    again, _ = timed(lambda: drain(path))
    drop_pages(path)
    read, _ = timed(lambda: drain(path))
    labs.unmount(mountpoint)
    process.wait()
    return {
        "a file in memory, read": bench.size / read / 1e6,
        "a file in memory, again": bench.size / again / 1e6,
    }


def scattered(bench, mount):
    draw = random.Random(7)
    descriptor = os.open(mount.mountpoint / "bench" / "large.bin", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    count, started = 0, time.perf_counter()
    try:
        while count < 200 and time.perf_counter() - started < 20:
            os.pread(descriptor, 4096, draw.randrange(bench.size // 4096) * 4096)
            count += 1
        took = time.perf_counter() - started
    finally:
        os.close(descriptor)
    return {"random 4 KiB, cold": count / took}


def small(bench, mount):
    count, started = 0, time.perf_counter()
    folder = mount.mountpoint / "bench" / "small"
    for name in sorted(os.listdir(folder)):
        drain(folder / name)
        count += 1
        # Enough for a rate; the others are slow.
        if time.perf_counter() - started > 60:
            break
    return {"small files read, cold": count / (time.perf_counter() - started)}


def plain(bench, handle, streams=6, step=8 * MIB):
    """The bytes of the large file, by as many connections as a mount uses."""
    url = urllib.parse.urlsplit(bench.emulator.url)
    places = iter(range(0, bench.size, step))
    lock, failed = threading.Lock(), []

    def fetch():
        connection = http.client.HTTPConnection(url.hostname, url.port)
        buffer = bytearray(MIB)
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return
            last = min(place + step, bench.size) - 1
            for _ in range(10):
                connection.request("GET", f"/dl/{handle}/{place}-{last}")
                reply = connection.getresponse()
                count = 0
                while got := reply.readinto(buffer):
                    count += got
                if reply.status == 200 and count == last + 1 - place:
                    break
            else:
                failed.append(place)

    threads = [threading.Thread(target=fetch) for _ in range(streams)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise labs.Failure(f"the plain downloader failed at {failed}")
    return {"plain downloader": bench.size / (time.perf_counter() - started) / 1e6}


# Files that are read at a time in `fifty`.
READERS = 50
PARTS = {
    "sequential": sequential, "first": first_byte, "four": four, "random": scattered, "small": small,
    "readers": fifty,
}  # fmt: skip


def populate(bench):
    """The files that are read, besides the large one."""
    def file(path, size, seed):
        return {"kind": "file", "path": path, "content": {"pattern": {"size": size, "seed": seed}}, "mtime": 1}

    files = [file("/bench/warm.bin", 1000, 2)]
    files += [file(f"/bench/quarter{n}.bin", bench.size // 4, 10 + n) for n in range(4)]
    files += [file(f"/bench/fiftieth{n}.bin", bench.size // READERS, 20 + n) for n in range(READERS)]
    files += [file(f"/bench/small/{n:05}.bin", 1024 + n * 15, 100 + n) for n in range(bench.counts["megamount"])]
    bench.emulator.control("populate", files, email=labs.EMAIL)


def address(bench):
    """What a download URL of the large file ends with: its handle and the moment it was given."""
    nodes = bench.emulator.live()
    node = next(node for node in nodes if node["path"] == "/bench/large.bin")
    return f"{node['handle']}.1-{int(time.time() * 1000)}"


def run(bench, contenders, options, finish):
    """{profile: {measure: {contender: [values]}}}, contenders in turns."""
    populate(bench)
    results = {}
    for profile in options.profile or PROFILES:
        knobs = {"latency_ms": 0, "down_per_connection": 0, "down_total": 0, **PROFILES[profile]}
        found = results.setdefault(profile, {})
        for part in options.read or PARTS:
            for number in range(options.rounds):
                for contender in contenders if number % 2 == 0 else reversed(contenders):
                    bench.emulator.control("knobs", {"latency_ms": 0, "down_per_connection": 0, "down_total": 0})
                    mount, _ = contender.mount()
                    bench.emulator.control("knobs", knobs)
                    if profile == "200ms":
                        bench.emulator.control("faults", FAILING)
                    answer = PARTS[part](bench, mount)
                    for measure, value in answer.items():
                        found.setdefault(measure, {}).setdefault(contender.name, []).append(value)
                    if profile == "200ms":
                        bench.emulator.control("faults", method="DELETE")
                    finish(contender, mount)
                    last = {measure: round(values[contender.name][-1], 2) for measure, values in found.items()
                            if contender.name in values and measure in answer}  # fmt: skip
                    print(f"  {profile}, {part}: {contender.name} {last}", file=sys.stderr, flush=True)
        for _ in range(options.rounds if profile == "loopback" else 0):
            for measure, value in in_memory(bench).items():
                found.setdefault(measure, {}).setdefault("limit", []).append(value)
        bench.emulator.control("knobs", knobs)
        for measure, value in plain(bench, address(bench)).items():
            found.setdefault(measure, {})["limit"] = [value]
    return results
