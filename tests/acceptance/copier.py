"""Copies a tree as cp -a does, one file after the other, and notes each file whose close returned:

    copier.py SOURCE TARGET JOURNAL

The note is in the journal before the next file is begun, so that after a kill -9 of the file system
below it the journal tells what must not be missing. Ends quietly when the target dies.
"""

import os
import sys

source, target, journal = sys.argv[1:4]
with open(journal, "ab", buffering=0) as done:
    try:
        for folder, folders, names in os.walk(source):
            folders.sort()
            at = os.path.join(target, os.path.relpath(folder, source))
            os.makedirs(at, exist_ok=True)
            for name in sorted(names):
                path = os.path.join(folder, name)
                status = os.stat(path)
                fd = os.open(os.path.join(at, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                try:
                    with open(path, "rb") as content:
                        while part := content.read(1 << 20):
                            while part:
                                part = part[os.write(fd, part) :]
                    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
                finally:
                    os.close(fd)
                done.write(os.fsencode(os.path.relpath(path, source)) + b"\0")
    except OSError as error:
        print(f"copier: {error}")
        sys.exit(3)
