#!/usr/bin/env python3
"""Draws a terminal in which `megamount status --watch` runs, as an SVG file. Run by scripts/screenshot."""

import argparse
import html
import os
import pathlib
import pty
import random
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import fcntl

import pyte

COLUMNS, LINES = 112, 16
# Of one letter, in pixels, in the font of 14 pixels below.
WIDTH, HEIGHT = 8.43, 18
COLOURS = {
    "default": "#d8dee9",
    "black": "#4c566a",
    "red": "#e06c75",
    "green": "#98c379",
    "brown": "#e5c07b",
    "yellow": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#eceff4",
}
# Seconds after which something is wrong.
PATIENCE = 60


class Failure(Exception):
    """What the user is told."""


def terminal(command, env):
    """Starts a command on a terminal of its own."""
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        os.execvpe(command[0], command, env)
    return pid, fd


def watch(command, env, is_good):
    """The screen of the command once `is_good` says so of its lines."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    pid, fd = terminal(command, env)
    begun = time.monotonic()
    deadline = begun + PATIENCE
    try:
        while time.monotonic() < deadline:
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    stream.feed(os.read(fd, 65536))
                except OSError:
                    break
            # It is drawn all the time, so there is no moment at which nothing comes; the first pictures have no
            # speed yet.
            if time.monotonic() > begun + 3 and is_good(screen.display):
                return screen
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        os.close(fd)
    raise Failure("what was to be seen did not come:\n" + "\n".join(screen.display))


def draw(screen, title, mountpoint):
    """The screen as SVG, as if the mountpoint were another."""
    last = max((row for row in range(LINES) if screen.display[row].strip()), default=0)
    width, height = COLUMNS * WIDTH + 32, (last + 1) * HEIGHT + 60
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="#2e3440"/>',
        *(f'<circle cx="{20 + 18 * at}" cy="18" r="6" fill="{colour}"/>'
          for at, colour in enumerate(["#e06c75", "#e5c07b", "#98c379"])),
        '<g font-family="ui-monospace,DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="14" '
        'xml:space="preserve">',
    ]
    for row in range(last + 1):
        at = 0
        while at < COLUMNS:
            cell = screen.buffer[row][at]
            style = (cell.fg, cell.bold)
            text = ""
            begin = at
            while at < COLUMNS and (screen.buffer[row][at].fg, screen.buffer[row][at].bold) == style:
                text += screen.buffer[row][at].data
                at += 1
            text = text.replace(mountpoint, "/mnt/mega").rstrip()
            if not text.strip():
                continue
            colour = COLOURS.get(cell.fg, "#" + cell.fg if len(cell.fg) == 6 else COLOURS["default"])
            bold = ' font-weight="bold"' if cell.bold else ""
            # The length is given, so that another font does not move what follows.
            out.append(
                f'<text x="{16 + begin * WIDTH:.1f}" y="{50 + row * HEIGHT}" fill="{colour}"{bold} '
                f'textLength="{len(text) * WIDTH:.1f}">{html.escape(text)}</text>'
            )
    out += ["</g>", "</svg>", ""]
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(prog="scripts/screenshot")
    parser.add_argument("--directory", required=True, type=pathlib.Path)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    base = options.directory
    mountpoint = base / "mega"
    for directory in (mountpoint, base / "home", base / "run"):
        directory.mkdir(mode=0o700)
    env = os.environ | {"HOME": str(base / "home"), "XDG_RUNTIME_DIR": str(base / "run"), "TERM": "xterm-256color"}
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        env.pop(name, None)
    run = lambda *command: subprocess.run([options.binary, *command], env=env, check=True)
    run("demo:", str(mountpoint), "--bwlimit", "4500k:off", "--write-back", "0", "--uploads", "3", "--drain", "0")
    try:
        photos = mountpoint / "Holiday in Norway"
        photos.mkdir()
        random.seed(1)
        for name, size in [("fjord.mov", 96), ("ferry.mov", 64), ("DSC_0412.NEF", 24), ("DSC_0413.NEF", 23),
                           ("DSC_0414.NEF", 25)]:
            (photos / name).write_bytes(random.randbytes(size << 20))
        is_good = lambda lines: sum("MiB/s" in line for line in lines) >= 3
        time.sleep(8)
        screen = watch([options.binary, "status", str(mountpoint), "--watch"], env, is_good)
    finally:
        subprocess.run(["fusermount3", "-u", str(mountpoint)], check=False)
    options.output.write_text(draw(screen, "megamount status --watch", str(mountpoint)))
    print(f"{options.output} shows:\n" + "\n".join(line.rstrip() for line in screen.display if line.strip()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"screenshot: {failure}", file=sys.stderr)
        sys.exit(1)
