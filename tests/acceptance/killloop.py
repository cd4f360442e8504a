"""kill -9 of the real daemon under mixed load, round after round.

Several workers change their own folders of one mount through the kernel. Each writes down, outside the
mount, what it is about to do and that the system call returned. The daemon is killed, mounted again,
and what is in the mount must be what was acknowledged; the one call per worker that was under way may
have happened or not. At the end everything must be on the emulator, byte for byte, exactly once.

A worker's picture of its folder is a dict: path -> None for a folder, (bytes, mtime or None) for a
file. A call under way at the kill leaves two pictures; looking decides which one holds.
"""

import argparse
import os
import pathlib
import random
import re
import stat
import sys
import threading
import time
import urllib.parse
import urllib.request

import lab as labs

WORKERS = 5
MOST_FILES = 40
# Where a kill may fall. The fault makes the moment long enough to be hit on purpose.
MOMENTS = {
    "any time": None,
    "put": {"at": "cmd:p", "do": "slow", "ms": 400},
    "put, reply lost": {"at": "cmd:p", "do": "lost"},
    "move": {"at": "cmd:m", "do": "slow", "ms": 400},
    "attributes": {"at": "cmd:a", "do": "slow", "ms": 400},
    "upload": {"at": "ul", "do": "slow", "ms": 400},
    "upload URL": {"at": "cmd:u", "do": "slow", "ms": 400},
}


class Worker:
    """One folder of the mount and the calls that change it."""

    def __init__(self, number, seed, directory):
        self.name = f"w{number}"
        self.random = random.Random(seed * 1000 + number)
        self.journal = open(directory / f"journal-{self.name}", "a", encoding="utf-8")
        self.tree = {}
        self.alternatives = None
        # Files whose content is not known: a write was under way.
        self.loose = set()
        self.acknowledged = 0
        self.thread = None
        self.failure = None
        self.root = None
        self.serial = 0
        # What was ever meant to be in a file, and when: tells what came back.
        self.contents = {}

    # The calls: each is (text, new picture, function, path with unknown bytes while it runs).

    def files(self):
        return [path for path, entry in self.tree.items() if entry is not None]

    def folders(self):
        return [""] + [path for path, entry in self.tree.items() if entry is None]

    def new_path(self, suffix=""):
        self.serial += 1
        folder = self.random.choice(self.folders())
        return os.path.join(folder, f"n{self.serial}{suffix}")

    def content(self):
        size = self.random.choice([0, 1, 700, 5000, 20_000, 70_000, 140_000, 600_000, 1_500_000])
        return self.random.randbytes(self.random.randint(size // 2, size))

    def change(self, path, entry):
        tree = dict(self.tree)
        tree[path] = entry
        if entry is not None:
            self.contents[hash(entry[0])] = f"{path} at call {self.acknowledged}"
        return tree

    def moved(self, old, new):
        tree = {p: e for p, e in self.tree.items() if p != new}
        for path in [p for p in tree if p == old or p.startswith(old + "/")]:
            tree[new + path[len(old):]] = tree.pop(path)
        return tree

    def without(self, path):
        return {p: e for p, e in self.tree.items() if p != path}

    def at(self, path):
        return os.path.join(self.root, path)

    def write(self, path, flags, data, offset=0):
        fd = os.open(self.at(path), flags, 0o644)
        try:
            done = 0
            while done < len(data):
                if flags & os.O_APPEND:
                    done += os.write(fd, data[done:])
                else:
                    done += os.pwrite(fd, data[done:], offset + done)
        except OSError:
            try:
                os.close(fd)
            except OSError:
                pass
            raise
        os.close(fd)

    def next_calls(self):
        """One user action: one call or several in a row, each acknowledged by itself."""
        files, folders = self.files(), self.folders()
        kinds = ["create"] * 5 + ["mkdir"]
        if files:
            kinds += ["rewrite", "append", "patch", "save", "rename", "rename", "touch"]
            kinds += ["unlink"] * (2 if len(files) < MOST_FILES else 20)
        if len(folders) > 1:
            kinds += ["move folder", "remove tree"] if len(folders) > 6 else ["move folder"]
        kind = self.random.choice(kinds)
        if kind == "create":
            path, data = self.new_path(), self.content()
            yield (f"create {path} {len(data)}", lambda: self.change(path, (data, None)),
                   lambda: self.write(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, data), path)
            return
        if kind == "mkdir":
            path = self.new_path(".d")
            yield f"mkdir {path}", lambda: self.change(path, None), lambda: os.mkdir(self.at(path)), None
            return
        if kind == "move folder":
            path = self.random.choice(folders[1:])
            new = self.new_path(".d")
            if not (new + "/").startswith(path + "/"):
                yield (f"rename {path} {new}", lambda: self.moved(path, new),
                       lambda: os.rename(self.at(path), self.at(new)), None)
            return
        if kind == "remove tree":
            yield from self.remove_tree(self.random.choice(folders[1:]))
            return
        path = self.random.choice(files)
        old = self.tree[path][0]
        if kind == "rewrite":
            data = self.content()
            yield (f"rewrite {path} {len(data)}", lambda: self.change(path, (data, None)),
                   lambda: self.write(path, os.O_TRUNC | os.O_RDWR, data), path)
        elif kind == "append":
            data = self.content()[:50_000]
            yield (f"append {path} {len(data)}", lambda: self.change(path, (old + data, None)),
                   lambda: self.write(path, os.O_APPEND | os.O_WRONLY, data), path)
        elif kind == "patch":
            offset = self.random.randint(0, len(old))
            data = self.content()[:20_000]
            new = old[:offset] + data + old[offset + len(data):]
            yield (f"patch {path} {offset} {len(data)}", lambda: self.change(path, (new, None)),
                   lambda: self.write(path, os.O_RDWR, data, offset), path)
        elif kind == "save":
            temporary, data = path + ".tmp", self.content()
            yield (f"create {temporary} {len(data)}", lambda: self.change(temporary, (data, None)),
                   lambda: self.write(temporary, os.O_CREAT | os.O_TRUNC | os.O_RDWR, data), temporary)
            yield (f"rename {temporary} {path}", lambda: self.moved(temporary, path),
                   lambda: os.rename(self.at(temporary), self.at(path)), None)
        elif kind == "rename":
            new = self.random.choice(files) if self.random.random() < 0.3 else self.new_path()
            if new != path:
                yield (f"rename {path} {new}", lambda: self.moved(path, new),
                       lambda: os.rename(self.at(path), self.at(new)), None)
        elif kind == "touch":
            when = self.random.randint(10**8, 2 * 10**9)
            yield (f"touch {path} {when}", lambda: self.change(path, (old, when)),
                   lambda: os.utime(self.at(path), (when, when)), None)
        elif kind == "unlink":
            yield f"unlink {path}", lambda: self.without(path), lambda: os.unlink(self.at(path)), None

    def remove_tree(self, top):
        inside = sorted((p for p in self.tree if p.startswith(top + "/")), reverse=True)
        for path in [*inside, top]:
            if self.tree[path] is None:
                yield (f"rmdir {path}", lambda path=path: self.without(path),
                       lambda path=path: os.rmdir(self.at(path)), None)
            else:
                yield (f"unlink {path}", lambda path=path: self.without(path),
                       lambda path=path: os.unlink(self.at(path)), None)

    def note(self, text):
        self.journal.write(text + "\n")
        self.journal.flush()

    def work(self, is_over, mount):
        """Calls until the mount is gone. An error of a living mount is a failure of the run."""
        try:
            while not is_over.is_set():
                for text, result, call, loose in self.next_calls():
                    new = result()
                    self.note("begin " + text)
                    self.alternatives = [self.tree, new]
                    self.loose = {loose} if loose else set()
                    call()
                    self.note("done")
                    self.tree, self.alternatives, self.loose = new, None, set()
                    self.acknowledged += 1
                    if is_over.is_set():
                        return
        except OSError as error:
            self.note(f"failed {error!r}")
            # The kernel tells us of the death before the parent does, on a busy machine long before.
            deadline = time.monotonic() + 10
            while not is_over.is_set() and mount.is_running() and time.monotonic() < deadline:
                time.sleep(0.01)
            if not is_over.is_set() and mount.is_running():
                self.failure = f"{self.name}: {error!r} from a living mount; {self.surroundings(error)}"

    @staticmethod
    def surroundings(error):
        """What is in the folder that a call failed for."""
        try:
            return f"{error.filename} has {sorted(os.listdir(error.filename))}"
        except (OSError, TypeError) as other:
            return repr(other)

    def look(self, read):
        """Compares what is there with what may be there. `read` gives path -> None | (bytes, mtime)."""
        found = read
        reasons = []
        for picture in self.alternatives or [self.tree]:
            reason = self.differs(picture, found)
            if reason is None:
                self.tree = {
                    path: self.observed(path, picture[path], found[path]) for path in picture
                }
                self.alternatives, self.loose = None, set()
                return len(found)
            reasons.append(reason)
        raise labs.Failure(f"{self.name}: " + " / ".join(reasons) + self.history(reasons))

    def history(self, reasons):
        """What this worker has done with the paths that are named in the reasons."""
        names = {word for reason in reasons for word in re.findall(r"n\d+", reason)}
        journal = pathlib.Path(self.journal.name).read_text(encoding="utf-8").splitlines()
        about = [line for line in journal if names & set(re.findall(r"n\d+", line))]
        return "\n  " + "\n  ".join(about[-20:] + ["the last lines:"] + journal[-4:])

    def observed(self, path, expected, found):
        if expected is None:
            return None
        return found if path in self.loose else (found[0], expected[1])

    def differs(self, picture, found):
        missing = sorted(set(picture) - set(found))
        extra = sorted(set(found) - set(picture))
        if missing or extra:
            return f"missing {missing}, too much {extra}"
        for path, entry in picture.items():
            seen = found[path]
            if (entry is None) != (seen is None):
                return f"{path} is of another kind"
            if entry is None or path in self.loose:
                continue
            if entry[0] != seen[0]:
                what = self.contents.get(hash(seen[0]), "content that nobody wrote")
                return (f"{path}: {len(seen[0])} bytes ({what}) where {len(entry[0])} others "
                        f"({self.contents.get(hash(entry[0]))}) were acknowledged")
            if entry[1] is not None and entry[1] != seen[1]:
                return f"{path}: mtime {seen[1]} where {entry[1]} was acknowledged"
        return None


def read_tree(root):
    found = {}
    for directory, names, files in os.walk(root, onerror=raise_error):
        for name in names + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, root)
            if stat.S_ISDIR(status.st_mode):
                found[relative] = None
            else:
                found[relative] = (pathlib.Path(path).read_bytes(), int(status.st_mtime))
    return found


def raise_error(error):
    raise error


class Loop:
    def __init__(self, lab, options):
        self.lab, self.options = lab, options
        self.random = random.Random(options.seed)
        self.workers = [Worker(n, options.seed, lab.directory) for n in range(WORKERS)]
        self.kills = {}
        self.during_upload = self.during_request = self.twice = 0
        self.checked = self.server_checked = self.stray = 0

    def mount(self):
        mount, _ = self.lab.spawn_megamount(
            "killed", "--write-back", "30ms", "--memory", "64MiB", "--drain", "5m"
        )
        self.lab.mounts = self.lab.mounts[-2:]
        return mount

    def start_workers(self, mount):
        is_over = threading.Event()
        for worker in self.workers:
            worker.root = os.path.join(mount.mountpoint, worker.name)
            worker.thread = threading.Thread(target=worker.work, args=(is_over, mount))
            worker.thread.start()
        return is_over

    def join_workers(self, is_over):
        is_over.set()
        for worker in self.workers:
            worker.thread.join(60)
            if worker.thread.is_alive():
                raise labs.Failure(f"{worker.name} hangs after the death of the daemon")
            if worker.failure:
                raise labs.Failure(worker.failure)

    def round(self, number):
        emulator = self.lab.emulator
        mount = self.mount()
        if number == 0:
            for worker in self.workers:
                (mount.mountpoint / worker.name).mkdir()
        is_over = self.start_workers(mount)
        moment = self.random.choice(list(MOMENTS))
        time.sleep(self.random.uniform(0.1, self.options.most_seconds))
        rule = MOMENTS[moment]
        if rule is not None:
            emulator.control("faults", {**rule, "count": 1}, method="POST")
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                if any(r["fired"] for r in emulator.control("faults")):
                    break
                time.sleep(0.002)
            else:
                moment = "any time"
        before = emulator.counters()
        if not mount.is_running():
            raise labs.Failure(f"the daemon has ended by itself, see {mount.log}")
        mount.kill()
        if mount.process.returncode != -9:
            raise labs.Failure(f"the daemon ended with {mount.process.returncode} instead of the kill")
        emulator.control("faults", method="DELETE")
        self.join_workers(is_over)
        self.kills[moment] = self.kills.get(moment, 0) + 1
        commands = before["commands"]
        if moment == "upload" or commands.get("u", 0) > commands.get("p", 0):
            self.during_upload += 1
        if moment not in ("any time", "upload"):
            self.during_request += 1
        if self.random.random() < 0.25:
            # Once more while it finds out what became of everything.
            mount = self.mount()
            time.sleep(self.random.uniform(0, 0.3))
            mount.kill()
            self.twice += 1
        mount = self.mount()
        self.look_locally(mount)
        if self.random.random() < 0.2:
            self.drain(mount)
        else:
            # The next round goes on where this one was killed.
            mount.kill()

    def look_locally(self, mount):
        for worker in self.workers:
            folder = mount.mountpoint / worker.name
            try:
                self.checked += worker.look(read_tree(folder))
            except labs.Failure as failure:
                # A failure all the same. But bytes that are lost are another fault than an old view of them.
                time.sleep(3)
                try:
                    worker.look(read_tree(folder))
                except labs.Failure as later:
                    raise labs.Failure(f"{failure}\nand 3 s later: {later}") from later
                raise labs.Failure(f"{failure}\nbut 3 s later it was as acknowledged") from failure

    def drain(self, mount):
        mount.end()
        if mount.process.returncode != 0:
            raise labs.Failure(f"unmounting ended with {mount.process.returncode}")
        self.look_at_server()

    def look_at_server(self):
        nodes = self.lab.emulator.live()
        found = {worker.name: {} for worker in self.workers}
        for node in nodes:
            parts = node["path"].strip("/").split("/", 1)
            if parts[0] not in found or len(parts) == 1:
                if parts[0] and parts[0] not in found:
                    raise labs.Failure(f"{node['path']} should not be on the server")
                continue
            tree, path = found[parts[0]], parts[1]
            if path in tree:
                raise labs.Failure(f"{node['path']} is on the server twice")
            tree[path] = None if node["folder"] else (self.content(node), node["mtime"])
        tops = [n["path"] for n in nodes if n["path"].count("/") == 1 and n["path"] != "/"]
        if len(tops) != len(set(tops)):
            raise labs.Failure(f"folders of one name on the server: {sorted(tops)}")
        for worker in self.workers:
            self.server_checked += worker.look(found[worker.name])
        # On a busy machine the last request of a killed daemon is still there when the next one sends its own.
        violations = [
            text for text in self.lab.emulator.counters()["violations"] if "at a time" not in text
        ]
        if violations:
            raise labs.Failure(f"the emulator objects: {violations[:3]}")
        staging = list((self.lab.directory / "megamount-killed").rglob("staging/*"))
        # No loss, and the next start puts them aside: counted, and a failure in the end.
        self.stray += len(staging)

    def content(self, node):
        query = urllib.parse.urlencode({"handle": node["handle"]})
        url = f"{self.lab.emulator.url}/_control/content?{query}"
        with urllib.request.urlopen(url, timeout=600) as reply:
            return reply.read()

    def run(self):
        for number in range(self.options.rounds):
            self.round(number)
            print(f"round {number + 1}: {sum(self.kills.values()) + self.twice} kills, "
                  f"{sum(w.acknowledged for w in self.workers)} calls acknowledged, "
                  f"{self.checked} entries checked locally, {self.server_checked} on the server", flush=True)
        mount = self.mount()
        self.look_locally(mount)
        self.drain(mount)

    def summary(self):
        print(f"rounds                        {self.options.rounds} (seed {self.options.seed})")
        for moment, count in sorted(self.kills.items()):
            print(f"  killed during: {moment:<15}{count}")
        print(f"kills with an upload open     {self.during_upload}")
        print(f"kills during a cs request     {self.during_request}")
        print(f"killed again while starting   {self.twice}")
        print(f"calls acknowledged            {sum(w.acknowledged for w in self.workers)}")
        print(f"entries checked locally       {self.checked}")
        print(f"entries checked on the server {self.server_checked}")
        print(f"staging files left by drains  {self.stray}")
        if self.stray:
            raise labs.Failure("nothing was lost, but staging files stay behind after a drain")
        if not self.kills:
            raise labs.Failure("nothing was killed: this proves nothing")
        if not self.during_upload or not self.during_request:
            print("note: no kill fell into an upload or into a request; run more rounds")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True)
    parser.add_argument("--binaries", required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--most-seconds", type=float, default=1.5, help="of load before a kill")
    parser.add_argument("rounds", type=int)
    options = parser.parse_args()
    labs.stop_on_signals()
    lab = labs.Lab(options.directory, options.binaries)
    lab.start_emulator(with_rclone=False)
    lab.emulator.control("knobs", {"latency_ms": 3, "up_total": 40_000_000}, method="POST")
    loop = Loop(lab, options)
    print(f"killloop: seed {options.seed}", flush=True)
    failure = None
    try:
        loop.run()
        loop.summary()
    except (labs.Failure, OSError) as error:
        failure = error
    finally:
        lab.close()
    if failure is not None:
        print(f"\nkillloop: FAILED with seed {options.seed}: {failure}")
        sys.exit(1)
    print("\nkillloop: nothing was lost, nothing was doubled")


if __name__ == "__main__":
    main()
