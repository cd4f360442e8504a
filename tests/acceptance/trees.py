"""Source trees: the same seed makes the same tree, contents, names and times."""

import os
import random

# Chunk boundaries of the protocol: pieces of 128 KiB times 1 to 8, then of 1 MiB.
BOUNDARIES = [131072 * n * (n + 1) // 2 for n in range(1, 9)] + [
    131072 * 36 + (1 << 20) * n for n in range(1, 4)
]

# Composed and decomposed accents, several scripts, a character beyond the 16-bit plane, and what
# shells and programs stumble over. Written as escapes: sources are ASCII.
WORDS = [
    "plain", "with space", " leading", "trailing ", "tab\there", "new\nline", "quote'\"s", "back\\slash",
    "semi;colon", "star*", "quest?ion", "-dash", "--help", "#hash", "%41percent", "~tilde", "a (1)",
    "caf\u00e9", "cafe\u0301", "\u00fcber", "\u0416\u0443\u043a", "\u65e5\u672c\u8a9e", "\u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627", "\U0001f980 crab", "\u200bzero width", "dot.", "..hidden", ".rc", "CON", "UPPER", "upper",
    "colon:name", "pipe|", "<angle>", "$HOME", "`tick`", "[x]", "{y}", "\u212bngstr\u00f6m",
]  # fmt: skip


def odd_sizes():
    """The edges of blocks and chunks."""
    sizes = [0, 1, 2, 15, 16, 17, 31, 4095, 4096, 4097, 65535, 65536, 65537]
    for boundary in BOUNDARIES:
        sizes += [boundary - 1, boundary, boundary + 1]
    sizes += [131072 - 16, 131072 + 15, 393216 + 16]
    return sizes


def _content(rng, size):
    """Random bytes, so that no position looks like another; large ones repeat a random block with
    its number written into it, which is as good and much faster."""
    if size <= 1 << 20:
        return [rng.randbytes(size)]
    block = rng.randbytes(1 << 20)
    return [
        n.to_bytes(8, "big") + block[8 : min(1 << 20, size - (n << 20))]
        if size - (n << 20) >= 8
        else block[: size - (n << 20)]
        for n in range((size + (1 << 20) - 1) >> 20)
    ]


def make(top, seed, count, large):
    """Makes count files below top: large are the sizes of the few large ones, the others are at
    the edges of chunks or small. Returns (files, bytes)."""
    rng = random.Random(seed)
    os.makedirs(top)
    folders = [""]
    for n in range(max(4, count // 25)):
        # A third of the folders go below the newest, so that some paths are deep.
        parent = folders[-1] if n % 3 == 0 else rng.choice(folders)
        if parent.count("/") > 20:
            parent = ""
        name = f"{rng.choice(WORDS)}.{n}" if n % 2 else f"d{n} {rng.choice(WORDS)}"
        folder = os.path.join(parent, name)
        os.mkdir(os.path.join(top, folder))
        folders.append(folder)
    # One very long name, and one chain of folders deeper than any client's recursion likes.
    deep = "deep"
    for n in range(40):
        os.mkdir(os.path.join(top, deep))
        deep = os.path.join(deep, f"{n}")
    os.mkdir(os.path.join(top, deep))
    folders.append(deep)
    sizes = list(large) + odd_sizes()[: max(0, count - len(large))]
    while len(sizes) < count:
        sizes.append(int(2 ** rng.uniform(0, 17)) if rng.random() < 0.97 else 0)
    total = 0
    for n, size in enumerate(sizes[:count]):
        folder = rng.choice(folders)
        name = f"{rng.choice(WORDS)}{n}.bin" if n % 3 else f"{n}{rng.choice(WORDS)}"
        if n == 5:
            name = "n" * 251 + ".txt"
        path = os.path.join(top, folder, name)
        with open(path, "xb") as file:
            for part in _content(rng, size):
                file.write(part)
        # Whole seconds: the protocol has no more.
        at = rng.randrange(1, 1_900_000_000)
        os.utime(path, (at, at))
        total += size
    return len(sizes[:count]), total


def files_of(top):
    """Relative paths of the files below top."""
    found = []
    for folder, _, names in os.walk(top):
        found += [os.path.relpath(os.path.join(folder, name), top) for name in names]
    return found
