"""Debian's cloud kernel and what a small Linux is made of around it: one kernel, unpacked once into a cache directory, and
initramfs archives with its modules and busybox. The Linux guest and the emulated hosts of the tests are built with it."""

import fcntl
import shutil
import struct
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

NEEDED = {"cpio": "cpio", "lz4": "lz4", "dpkg-deb": "dpkg", "apt-get": "apt", "/bin/busybox": "busybox-static"}
KERNEL_PAYLOAD_FIELDS = 0x248  # payload_offset, payload_length (Linux documentation, arch/x86/boot.rst)


class Unavailable(Exception):
    """Why it cannot be made here."""


def why_not(needed):
    """Why programs cannot be had on this machine, {program: Debian package}; empty when they are there."""
    missing = sorted({package for program, package in needed.items() if shutil.which(program) is None})
    return f"needs the Debian packages {', '.join(missing)}" if missing else ""


def run(*command, **options):
    """The command's output."""
    try:
        return subprocess.run([str(word) for word in command], check=True, capture_output=True, **options).stdout
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(map(str, command[:3]))} failed: {error.stderr.decode(errors='replace')[-400:]}") \
            from None


@contextmanager
def locked(directory):
    """Alone among processes that make something there."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pack(directory, archive):
    """A directory as a cpio archive, which a kernel unpacks over what it has."""
    names = run("find", ".", "-mindepth", "1", "-print0", cwd=directory)
    archive.write_bytes(run("cpio", "--null", "--create", "--format=newc", "--quiet", cwd=directory, input=names))


def unpacked_kernel(image):
    """The ELF file inside a bzImage."""
    content = image.read_bytes()
    setup_bytes = ((content[0x1f1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", content, KERNEL_PAYLOAD_FIELDS)
    payload = content[setup_bytes + offset:setup_bytes + offset + length]
    # The last four bytes are the unpacked size; lz4 complains about them, after it has unpacked the rest.
    elf = run("lz4", "-dc", input=payload[:-4])
    if not elf.startswith(b"\x7fELF"):
        raise Unavailable(f"{image} is not packed as Debian 12 packs kernels")
    return elf


def download(directory):
    """The .deb of Debian's cloud kernel."""

    def fetch():
        depends = run("apt-cache", "depends", "--important", "linux-image-cloud-amd64").decode()
        run("apt-get", "download", depends.split("Depends: ")[1].split()[0], cwd=directory)

    try:
        fetch()
    except (Unavailable, IndexError):
        run("apt-get", "update")  # the lists are missing, or older than the archive
        fetch()
    return next(directory.glob("*.deb"))


class Kernel:
    """The kernel in a cache directory, made when it is not there yet: `bzimage`, `elf` and modules."""

    def __init__(self, directory):
        reason = why_not(NEEDED)
        if reason:
            raise Unavailable(reason)
        directory = Path(directory).resolve()
        self.package = directory / "package"
        with locked(directory):
            if not self.package.is_dir():
                self._make(directory)
        self.elf = self.package / "vmlinux"
        self.bzimage = next((self.package / "boot").glob("vmlinuz-*"))
        self.version = self.bzimage.name.removeprefix("vmlinuz-")

    def _make(self, directory):
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            scratch = Path(scratch)
            package = scratch / "package"
            run("dpkg-deb", "-x", download(scratch), package)
            image = next((package / "boot").glob("vmlinuz-*"))
            (package / "vmlinux").write_bytes(unpacked_kernel(image))
            run("busybox", "depmod", "-b", package, image.name.removeprefix("vmlinuz-"))
            package.rename(self.package)  # last: it says that all is there

    def copy_modules(self, names, root):
        """The modules, with those they need, where a root directory has them."""
        source = self.package / "lib/modules" / self.version
        target = Path(root) / "lib/modules" / self.version
        depends = {}
        for line in (source / "modules.dep").read_text().splitlines():
            path, needs = line.split(":", 1)
            depends[path] = needs.split()
        paths = {Path(path).name.removesuffix(".ko").replace("-", "_"): path for path in depends}
        for name in names:
            path = paths.get(name.replace("-", "_"))
            if path is None:
                continue  # built into this kernel
            for needed in (path, *depends[path]):
                (target / needed).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / needed, target / needed)
        for name in ("modules.builtin", "modules.order"):
            shutil.copy(source / name, target / name)
        run("busybox", "depmod", "-b", root, self.version)


def make_root(root, init):
    """The directories of an initramfs, busybox under the names of its applets, and `init`."""
    for name in ("bin", "dev", "proc", "run", "sys", "tmp", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in run("busybox", "--list").decode().split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(init, root / "init")
    (root / "init").chmod(0o755)
