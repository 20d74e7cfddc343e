"""A host with hardware-style KVM, where there is none: an emulated AMD-V machine (QEMU TCG) that boots Debian's cloud
kernel with kvm_amd, runs one command as root, and powers off.

Made from Debian packages, once, in a cache directory: the kernel unpacked to its ELF form (QEMU boots it by PVH), and an
initramfs of busybox and the kernel's modules. What a command needs is laid over it, one cpio archive for each Overlay.
Everything there is emulated: instructions run, timings mean nothing.
"""

import ctypes
import mmap
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "cpio": "cpio", "lz4": "lz4", "dpkg-deb": "dpkg",
          "apt-get": "apt", "/bin/busybox": "busybox-static"}
# With what each needs: the guest's modprobe loads them in order.
MODULES = ("kvm-amd", "virtio_mmio", "virtio_net", "virtio_console", "tun", "veth", "bridge", "sch_netem", "tls")
MEMORY_MIB = 2048
STATUS = "amdv-host: status "
KERNEL_PAYLOAD_FIELDS = 0x248  # payload_offset, payload_length (Linux documentation, arch/x86/boot.rst)
PR_SET_PDEATHSIG = 1
PYTHON_LEFT_OUT = {"test", "idlelib", "lib2to3", "pydoc_data", "tkinter", "ensurepip", "distutils"}

INIT = """#!/bin/busybox sh
export PATH=/bin:/usr/bin:/sbin:/usr/sbin HOME=/root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs -o mode=0755 run /run
ip link set lo up
modprobe kvm-amd
stty -F /dev/ttyS0 raw -echo
/bin/sh /command </dev/null
echo; echo "{status}$?"
poweroff -f
""".format(status=STATUS)


class Unavailable(Exception):
    """Why there can be no such host here."""


def why_not():
    """Why no such host can be made on this machine; empty when it can."""
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    return f"needs the Debian packages {', '.join(missing)}" if missing else ""


def run(*command, **options):
    try:
        return subprocess.run([str(word) for word in command], check=True, capture_output=True, **options).stdout
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(map(str, command[:3]))} failed: {error.stderr.decode(errors='replace')[-400:]}") \
            from None


def tsc_khz():
    """Of this machine, which is the TSC of the emulated one too. Without being told, its kernel measures it against an
    emulated timer, and sometimes hangs over that."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("0f31 48c1e220 4809d0 c3"))  # rdtsc; shl rdx, 32; or rax, rdx; ret
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def measure():
        first, begin = rdtsc(), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        end = begin
        while end - begin < 50_000_000:
            end = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        return (rdtsc() - first) * 1_000_000 // (end - begin)

    return min(measure() for _ in range(3))


def pack(directory, archive):
    """A directory as a cpio archive that the kernel unpacks over what it has."""
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


def copy_modules(tree, target):
    version = next((tree / "lib/modules").iterdir()).name
    source = tree / "lib/modules" / version
    run("busybox", "depmod", "-b", tree, version)
    depends = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, needs = line.split(":", 1)
        depends[path] = needs.split()
    paths = {Path(path).name.removesuffix(".ko").replace("-", "_"): path for path in depends}
    root = target / "lib/modules" / version
    for name in MODULES:
        path = paths.get(name.replace("-", "_"))
        if path is None:
            continue  # built into this kernel
        for needed in (path, *depends[path]):
            (root / needed).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / needed, root / needed)
    for name in ("modules.builtin", "modules.order"):
        shutil.copy(source / name, root / name)
    run("busybox", "depmod", "-b", target, version)


def download_kernel(directory):
    """The .deb of Debian's cloud kernel."""

    def download():
        depends = run("apt-cache", "depends", "--important", "linux-image-cloud-amd64").decode()
        run("apt-get", "download", depends.split("Depends: ")[1].split()[0], cwd=directory)

    try:
        download()
    except (Unavailable, IndexError):
        run("apt-get", "update")  # the lists are missing, or older than the archive
        download()
    return next(directory.glob("*.deb"))


class Cache:
    """The kernel and the base initramfs, made when they are not there yet."""

    def __init__(self, directory):
        reason = why_not()
        if reason:
            raise Unavailable(reason)
        self.directory = Path(directory)
        self.kernel = self.directory / "vmlinux"
        self.base = self.directory / "base.cpio"
        if not self.base.is_file():
            self._make()

    def _make(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            scratch = Path(scratch)
            run("dpkg-deb", "-x", download_kernel(scratch), scratch / "package")
            self.kernel.write_bytes(unpacked_kernel(next((scratch / "package/boot").glob("vmlinuz-*"))))
            root = scratch / "root"
            for name in ("bin", "dev", "proc", "run", "sys", "tmp", "root"):
                (root / name).mkdir(parents=True)
            shutil.copy("/bin/busybox", root / "bin/busybox")
            (root / "init").write_text(INIT)
            (root / "init").chmod(0o755)
            copy_modules(scratch / "package", root)
            pack(root, scratch / "base.cpio")
            (scratch / "base.cpio").rename(self.base)  # last: it says that all is there


class Overlay:
    """Files for the emulated host, laid over its root directory."""

    def __init__(self):
        self.files = {}

    def add(self, source, target):
        """A file, or a directory with all in it but what Python makes."""
        source = Path(source)
        if source.is_dir():
            for path in source.rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    self.files[f"{target}/{path.relative_to(source)}"] = path
        else:
            self.files[str(target)] = source
        return self

    def add_program(self, source, target=None):
        """A program with its shared libraries."""
        self.add(source, target or source)
        self.add_libraries(source)
        return self

    def add_libraries(self, *objects):
        for line in subprocess.run(["ldd", *map(str, objects)], capture_output=True, check=False,
                                   text=True).stdout.splitlines():
            words = line.split()
            path = next((word for word in words if word.startswith("/") and not word.endswith(":")), None)
            if path is not None:
                self.add(path, path)

    def add_python(self):
        """python3 with its library, and jsonschema with what it imports."""
        python = Path("/usr/bin/python3").resolve()
        library = Path("/usr/lib") / python.name
        self.add_program(python, "/usr/bin/python3")
        for path in library.rglob("*"):
            if path.is_file() and not PYTHON_LEFT_OUT.intersection(path.relative_to(library).parts):
                self.files[str(path)] = path
        self.add_libraries(*(library / "lib-dynload").glob("_[ch]*.so"))
        packages = Path("/usr/lib/python3/dist-packages")
        for pattern in ("jsonschema*", "attr*", "pyrsistent*", "pvectorc*"):
            for path in packages.glob(pattern):
                self.add(path, path)
        return self

    def pack(self, archive):
        with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
            for target, source in self.files.items():
                place = Path(scratch) / target.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source.resolve(), place)
                except OSError:
                    shutil.copy(source, place)
            pack(scratch, archive)


def end_with_parent():
    """Between fork and exec: QEMU ends when this process does, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Host:
    """One emulated host that runs `command`, a line for its shell. The output goes to `output`, a file."""

    def __init__(self, cache, overlays, command, output, memory_mib=MEMORY_MIB):
        self.scratch = tempfile.TemporaryDirectory(dir=cache.directory)
        directory = Path(self.scratch.name)
        (directory / "command").write_text(command + "\n")
        last = directory / "command.cpio"
        Overlay().add(directory / "command", "/command").pack(last)
        with open(directory / "initrd", "wb") as initrd:
            for archive in (cache.base, *overlays, last):
                initrd.write(Path(archive).read_bytes())
        self.output = output
        self.status = None
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1",
             "-m", str(memory_mib), "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-nic", "none",
             "-kernel", str(cache.kernel), "-initrd", str(directory / "initrd"), "-append",
             f"console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable tsc_early_khz={tsc_khz()}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=end_with_parent)

    def wait(self, seconds):
        """The exit status of the command; None when the host came to no end, or to a bad one."""
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip("\r\n")
            if line.startswith(STATUS):
                self.status = int(line.removeprefix(STATUS))
            elif self.status is None:
                print(line, file=self.output, flush=True)
        timer.cancel()
        self.process.wait()
        return self.status

    def close(self):
        self.process.kill()
        self.process.wait()
        self.scratch.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()
