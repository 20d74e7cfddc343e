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
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "guest-images" / "linux"))
import debian_kernel  # noqa: E402

NEEDED = {"qemu-system-x86_64": "qemu-system-x86"}
# With what each needs: the guest's modprobe loads them in order.
MODULES = ("kvm-amd", "virtio_mmio", "virtio_net", "virtio_console", "tun", "veth", "bridge", "sch_netem", "tls")
MEMORY_MIB = 2048
STATUS = "amdv-host: status "
PR_SET_PDEATHSIG = 1
PYTHON_LEFT_OUT = {"test", "idlelib", "lib2to3", "pydoc_data", "tkinter", "ensurepip", "distutils"}

INIT = Path(__file__).with_name("amdv_init")
Unavailable = debian_kernel.Unavailable


def why_not():
    """Why no such host can be made on this machine; empty when it can."""
    return debian_kernel.why_not(NEEDED | debian_kernel.NEEDED)


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


class Cache:
    """The kernel and the base initramfs, made when they are not there yet."""

    def __init__(self, build):
        reason = why_not()
        if reason:
            raise Unavailable(reason)
        kernel = debian_kernel.Kernel(Path(build) / "debian-kernel")
        self.directory = Path(build) / "amdv"
        self.kernel = kernel.elf
        self.base = self.directory / "base.cpio"
        recipe = max(Path(path).stat().st_mtime for path in (INIT, debian_kernel.__file__, __file__, kernel.elf))
        with debian_kernel.locked(self.directory):
            if not self.base.is_file() or self.base.stat().st_mtime < recipe:
                self._make(kernel)

    def _make(self, kernel):
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            root = Path(scratch) / "root"
            debian_kernel.make_root(root, INIT)
            kernel.copy_modules(MODULES, root)
            debian_kernel.pack(root, Path(scratch) / "base.cpio")
            (Path(scratch) / "base.cpio").rename(self.base)  # last: it says that all is there


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
            debian_kernel.pack(scratch, archive)


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
