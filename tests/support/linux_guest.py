"""The Linux guest's files, made when they are not there yet (guest-images/linux/build)."""

import subprocess
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "guest-images" / "linux" / "build"
CONSOLE = "console=ttyS0 quiet panic=-1 mitigations=off"


class Unavailable(Exception):
    """Why there can be no such guest here."""


class Image:
    """`kernel` (ELF, for PVH), `bzimage` and `initrd`, in the folder of a build where tests find guests."""

    def __init__(self, build):
        directory = Path(build).resolve() / "guests" / "linux"
        done = subprocess.run([BUILD, directory, directory / "selfcheck"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(done.stderr.strip())
        self.kernel = directory / "vmlinux"
        self.bzimage = directory / "vmlinuz"
        self.initrd = directory / "initrd.cpio"
