"""Disk images for tests, and who holds their locks, seen from outside (devices/virtio/disk_image.hpp)."""

import fcntl
import os
import struct
from pathlib import Path

OWNER_AT = 1 << 62
HEIR_AT = OWNER_AT + 1
F_OFD_GETLK = 36  # asm-generic/fcntl.h; newer than Python's module
FLOCK = struct.Struct("hhqqi4x")  # struct flock of x86-64


def make(path, size=1 << 20):
    with open(path, "wb") as image:
        image.truncate(size)
    return path


def option(path, *flags, name="data"):
    return "--disk", ",".join((f"id={name}", f"path={path}", *flags))


def is_locked(path, at):
    with open(path, "rb+") as image:
        answer = fcntl.fcntl(image, F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0))
    return FLOCK.unpack(answer)[0] != fcntl.F_UNLCK


def holders(path, at):
    """The processes with such a lock: the kernel names none for it, but each descriptor shows its own."""
    inode = os.stat(path).st_ino
    found = set()
    for info in Path("/proc").glob("[0-9]*/fdinfo/*"):
        try:
            lines = info.read_text().splitlines()
        except OSError:
            continue  # it ended meanwhile
        for line in lines:
            words = line.split()
            if words[:1] == ["lock:"] and words[2] == "OFDLCK" and words[6].split(":")[-1] == str(inode) \
                    and words[7] == str(at):
                found.add(int(info.parts[2]))
    return found


def owners(path):
    """Never more than one, and what the kernel says of the byte itself agrees."""
    found = holders(path, OWNER_AT)
    if len(found) > 1:
        raise AssertionError(f"{path} has the owners {found}")
    return found
