"""What the acceptance run and the benchmarks stand on: the emulator, the mounts, the other clients.

Everything lives below one directory, everything started names it on its command line or in its
environment, and close() ends it by process id. Nothing but loopback is spoken to.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.parse
import urllib.request

REPO = pathlib.Path(__file__).resolve().parents[2]
PEERS = REPO / "target" / "peers"
RCLONE = PEERS / "venv" / "bin" / "rclone"
EMAIL = "acceptance@example.com"
PASSWORD = "correct horse battery staple"


class Failure(Exception):
    """What was asked for does not hold."""


def wait_until(what, test, deadline=60.0, pause=0.02):
    """Returns the first true answer of test; fails after deadline seconds."""
    end = time.monotonic() + deadline
    while True:
        answer = test()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {deadline:.0f} s")
        time.sleep(pause)


def is_mounted(path):
    """Asks the kernel's table, so that a dead mount is one too."""
    wanted = str(path).replace(" ", "\\040")
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as table:
        return any(line.split(" ")[1] == wanted for line in table)


def peak_memory(pid):
    """Peak resident bytes of a running process."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def processor_time(pid):
    """Seconds of processor time of a running process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def processes_about(text):
    """Ids of processes that have text on their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.fsencode(text) in pathlib.Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(int(entry))
    return found


def unmount(mountpoint, deadline=20.0):
    """As a user would; a mount that is busy is tried again until the deadline."""
    end = time.monotonic() + deadline
    while True:
        result = subprocess.run(
            ["fusermount3", "-u", str(mountpoint)], capture_output=True, text=True
        )
        if result.returncode == 0:
            return
        if time.monotonic() > end:
            raise Failure(f"fusermount3 -u {mountpoint}: {result.stderr.strip()}")
        time.sleep(0.1)


class Emulator:
    """The mega-emulator binary and its control interface."""

    def __init__(self, binary, directory, in_memory=False):
        directory.mkdir()
        command = [binary, "--listen", "127.0.0.1:0", "--account", f"{EMAIL}:{PASSWORD}"]
        if not in_memory:
            command += ["--data", directory / "data"]
        # The address names the directory in the environment, for whoever clears up after us.
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=open(directory / "emulator.log", "wb"),
            text=True,
            env={**os.environ, "LAB": str(directory)},
        )
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise Failure(f"the emulator did not start: {line!r}")
        self.url = line.removeprefix("listening on ").strip().rstrip("/")

    def control(self, path, body=None, method=None, **query):
        url = f"{self.url}/_control/{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.loads(reply.read())

    def counters(self):
        return self.control("counters")

    def nodes(self):
        return self.control("tree", email=EMAIL)

    def live(self):
        """Current nodes of the cloud drive; the same path may occur more than once."""
        return [
            n for n in self.nodes() if not n["path"].startswith("//") and n["version_of"] is None
        ]

    def files_below(self, top):
        """Live files below a folder by path relative to it."""
        prefix = top + "/"
        found = {}
        for node in self.live():
            if node["path"].startswith(prefix) and not node["folder"]:
                name = node["path"].removeprefix(prefix)
                if name in found:
                    raise Failure(f"{node['path']} is on the server twice")
                found[name] = node
        return found


class Mount:
    """One running mount, whoever made it."""

    def __init__(self, mountpoint, pid, process=None, log=None):
        self.mountpoint, self.pid, self.process, self.log = mountpoint, pid, process, log

    def is_running(self):
        if self.process is not None:
            return self.process.poll() is None
        return is_running(self.pid)

    def end(self, deadline=600.0):
        """Unmounts and waits for the daemon, which may upload for a while."""
        unmount(self.mountpoint)
        wait_until("the daemon's end", lambda: not self.is_running(), deadline)

    def kill(self):
        """kill -9, and what the user then does about the dead mount."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until("the daemon's death", lambda: not self.is_running(), 30)
        subprocess.run(["fusermount3", "-uz", str(self.mountpoint)], check=False)
        wait_until("the dead mount's end", lambda: not is_mounted(self.mountpoint), 30)


class Lab:
    """The directory of one run and everything in it."""

    def __init__(self, directory, binaries):
        self.directory = pathlib.Path(directory)
        self.binaries = pathlib.Path(binaries)
        self.megamount_binary = str(pathlib.Path(binaries) / "megamount")
        self.emulator_binary = str(pathlib.Path(binaries) / "mega-emulator")
        self.emulator = None
        self.mounts = []

    def replace_emulator(self, name):
        """Another one, in memory and empty, in the place of the first; mounts of that one have ended."""
        self.emulator.process.kill()
        self.emulator.process.wait()
        return self.start_emulator(in_memory=True, name=name)

    def start_emulator(self, in_memory=False, with_rclone=True, name="emulator"):
        self.emulator = Emulator(self.emulator_binary, self.directory / name, in_memory)
        secret = self.directory / "password"
        secret.write_text(PASSWORD + "\n")
        secret.chmod(0o600)
        config = self.directory / "config.toml"
        config.write_text(
            f'[remote.work]\nuser = "{EMAIL}"\npass-file = "{secret}"\n'
            f'api-url = "{self.emulator.url}"\n'
        )
        config.chmod(0o600)
        if not with_rclone:
            return self.emulator
        obscured = subprocess.run(
            [RCLONE, "obscure", PASSWORD], check=True, capture_output=True, text=True
        ).stdout.strip()
        (self.directory / "rclone.conf").write_text(
            f"[m]\ntype = mega\nuser = {EMAIL}\npass = {obscured}\n"
        )
        return self.emulator

    def environment(self):
        return {
            **os.environ,
            "HOME": str(self.directory),
            "RCLONE_CONFIG": str(self.directory / "rclone.conf"),
            "X_MEGA_API_URL": self.emulator.url,
        }

    def rclone(self, *arguments):
        command = [RCLONE, "--log-level", "NOTICE", "--retries", "1", *arguments]
        result = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
        if result.returncode != 0:
            raise Failure(f"rclone {' '.join(arguments)}: {result.stderr[-2000:]}")
        return result.stdout

    def _command(self, name, mountpoint, options):
        base = self.directory / f"megamount-{name}"
        log = self.directory / f"megamount-{name}.log"
        mountpoint.mkdir(exist_ok=True)
        command = [
            self.megamount_binary, "work:", str(mountpoint),
            "--config", str(self.directory / "config.toml"),
            "--state-dir", str(base / "state"), "--cache-dir", str(base / "cache"),
            "--log-file", str(log), "--log-level", os.environ.get("LAB_LOG_LEVEL", "info"),
            *options,
        ]  # fmt: skip
        return command, base, log

    def megamount(self, name, *options):
        """Mounts in the background, as a user does: the command returns when the mount answers."""
        mountpoint = self.directory / f"mnt-{name}"
        command, base, log = self._command(name, mountpoint, options)
        result = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=300
        )
        if result.returncode != 0:
            raise Failure(f"megamount ended with {result.returncode}: {result.stderr.strip()}")
        pids = processes_about(str(base / "state"))
        if len(pids) != 1:
            raise Failure(f"one daemon expected, found {pids}")
        return self._mounted(Mount(mountpoint, pids[0], log=log))

    def _spawn(self, command, mountpoint, output, deadline):
        """Starts a mount in the foreground; answers it and the seconds until it served a listing."""
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=self.environment(), stdout=output, stderr=output, cwd="/"
        )
        mount = self._mounted(Mount(mountpoint, process.pid, process))
        before = os.stat(mountpoint.parent).st_dev

        def answers():
            if process.poll() is not None:
                raise Failure(f"{command[0]} ended with {process.returncode}, see {output.name}")
            return os.stat(mountpoint).st_dev != before and os.listdir(mountpoint) is not None

        wait_until("the mount", answers, deadline, pause=0.001)
        return mount, time.perf_counter() - started

    def spawn_megamount(self, name, *options, deadline=120):
        mountpoint = self.directory / f"mnt-{name}"
        command, _, _ = self._command(name, mountpoint, ["--foreground", *options])
        with open(self.directory / f"megamount-{name}.out", "ab") as output:
            return self._spawn(command, mountpoint, output, deadline)

    def spawn_rclone(self, name, *options, deadline=120):
        mountpoint = self.directory / f"mnt-{name}"
        mountpoint.mkdir(exist_ok=True)
        command = [
            str(RCLONE), "mount", "m:", str(mountpoint), "--vfs-cache-mode", "full",
            "--cache-dir", str(self.directory / f"rclone-{name}"), *options,
        ]  # fmt: skip
        with open(self.directory / f"rclone-{name}.log", "ab") as output:
            return self._spawn(command, mountpoint, output, deadline)

    def _mounted(self, mount):
        self.mounts.append(mount)
        return mount

    def close(self):
        """Ends what still runs. Never fails: it runs after failures."""
        for mount in self.mounts:
            if is_mounted(mount.mountpoint):
                subprocess.run(["fusermount3", "-uz", str(mount.mountpoint)], check=False)
            if mount.is_running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(mount.pid, signal.SIGKILL)
            if mount.process is not None:
                mount.process.wait()
        if self.emulator is not None:
            self.emulator.process.kill()
            self.emulator.process.wait()


def stop_on_signals():
    """SIGTERM ends the run like an interrupt from the keyboard: through the finally blocks."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
