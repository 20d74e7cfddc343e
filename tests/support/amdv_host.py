"""Hosts with hardware-style KVM, where there is none: emulated AMD-V machines (QEMU TCG) that boot Debian's cloud kernel
with kvm_amd, one or two of them joined by a network, and run commands as root for who made them.

Made from Debian packages, once, in the build directory: the kernel in its ELF form (QEMU boots it by PVH), and an initramfs
of busybox and the kernel's modules. What commands need is laid over it (amdv_overlay.py). Everything there is emulated:
instructions run, timings mean nothing.
"""

import ctypes
import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "guest-images" / "linux"))
import debian_kernel  # noqa: E402
from support import amdv_tsc  # noqa: E402

Unavailable = debian_kernel.Unavailable
NEEDED = {"qemu-system-x86_64": "qemu-system-x86"}
INIT = Path(__file__).with_name("amdv_init")
# With what each needs.
MODULES = ("kvm-amd", "virtio_mmio", "virtio_net", "virtio_console", "virtio_blk", "tun", "veth", "bridge", "sch_netem",
           # Kernel TLS, with what it encrypts with.
           "tls", "gcm", "ctr", "ghash-generic", "aesni-intel", "ghash-clmulni-intel")
MEMORY_MIB = 2048
BOOT_SECONDS = 60
CHANNELS = 10  # commands that can run in a host at the same time
CHANNEL_SECONDS = 120  # until one of them is free
STATUS = b"amdv-status "
PR_SET_PDEATHSIG = 1


def why_not():
    """Why no such host can be made on this machine; empty when it can."""
    return debian_kernel.why_not(NEEDED | debian_kernel.NEEDED)


class Crashed(Exception):
    """An emulated host did not come up, or has ended by itself: now and then QEMU 7.2 does, by an assertion of its own,
    whatever runs in it. No verdict on us, so tests try once more."""


class Scratch:
    """A directory of one owner; what a killed owner leaves behind, the next Cache removes."""

    def __init__(self, cache):
        with debian_kernel.locked(cache.directory):
            self.path = Path(tempfile.mkdtemp(prefix="scratch-", dir=cache.directory))
            self.handle = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self.handle, fcntl.LOCK_EX)

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.handle)

    @staticmethod
    def sweep(directory):
        """Call with the directory locked."""
        for path in directory.glob("scratch-*"):
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # its owner has just removed it
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            except BlockingIOError:
                pass  # its owner lives
            finally:
                os.close(handle)


class Cache:
    """The kernel and the base initramfs, made when they are not there yet."""

    def __init__(self, build):
        reason = why_not()
        if reason:
            raise Unavailable(reason)
        kernel = debian_kernel.Kernel(Path(build) / "debian-kernel")
        self.directory = Path(build).resolve() / "amdv"
        self.kernel = kernel.elf
        self.base = self.directory / "base.cpio"
        recipe = max(Path(path).stat().st_mtime for path in (INIT, debian_kernel.__file__, __file__, kernel.elf))
        with debian_kernel.locked(self.directory):
            Scratch.sweep(self.directory)
            if not self.base.is_file() or self.base.stat().st_mtime < recipe:
                self._make(kernel)

    def _make(self, kernel):
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            root = Path(scratch) / "root"
            debian_kernel.make_root(root, INIT)
            kernel.copy_modules(MODULES, root)
            debian_kernel.pack(root, Path(scratch) / "base.cpio")
            (Path(scratch) / "base.cpio").rename(self.base)  # last: it says that all is there


def end_with_parent():
    """Between fork and exec: QEMU ends when the thread that starts it does, however this process ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Channel:
    """A shell in the host, at the other end of a socket."""

    def __init__(self):
        self.socket, self.theirs = socket.socketpair()
        self.buffer = b""
        self.over = False  # the host is gone

    def send(self, data):
        try:
            self.socket.sendall(data)
        except BrokenPipeError:
            pass  # the host is gone, as the next line shows

    def line(self):
        """The next line with its end; empty when the host is gone."""
        while b"\n" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                self.over = True
                return b""
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"


class Command:
    """A command that runs in a host, much as a subprocess.Popen with its output and errors in `stdout`. Somebody must read
    `stdout` to its end for the command to end."""

    def __init__(self, host, channel, command, interactive):
        self.args = command
        self.host = host
        self.channel = channel
        self.returncode = None
        self.ended = threading.Event()
        # In a session of its own, so that all of it can be killed.
        inner = shlex.quote(f"echo $$; {command}")
        source = "" if interactive else "</dev/null"
        channel.send(f"setsid sh -c {inner} {source} 2>&1; s=$?; echo; echo {STATUS.decode()}$s\n".encode())
        self.pid = int(channel.line() or 0)

    @property
    def stdout(self):
        """The lines, as bytes, all with an end. An empty one waits for the next: the last belongs to the status."""
        empty = b""
        while line := self.channel.line():
            if line.startswith(STATUS):
                self.end(int(line.removeprefix(STATUS)))
                return
            if empty:
                yield empty
            empty = line if line == b"\n" else b""
            if not empty:
                yield line
        self.end(-signal.SIGKILL)

    def end(self, status):
        if self.returncode is None:
            self.returncode = status
            self.host.free(self.channel)
            self.ended.set()

    def wait(self, timeout=None):
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def kill(self, name="KILL"):
        if self.returncode is None:
            self.host.run(f"kill -{name} -- -{self.pid}")


class Host:
    """One emulated host. `tsc_khz`: how fast its kernel takes its TSC to be. `link` is a socket to the other; `address`, of
    eth0 on it. `tsc_seconds`: what its TSC shows when it starts. `disk`, a file, is its /dev/vda, and other hosts may have
    it too. `console`: what QEMU does with its serial port; as it is, the kernel's last words are shown when it does not
    boot."""

    def __init__(self, cache, overlays, tsc_khz, name="a", link=None, address=None, tsc_seconds=0, disk=None,
                 memory_mib=MEMORY_MIB, cpus=1, console=None):
        self.name = name
        self.address = address
        self.disk = disk
        self.scratch = Scratch(cache)
        self.channels = [Channel() for _ in range(CHANNELS)]
        self.unused = list(self.channels)
        self.changed = threading.Condition()
        directory = self.scratch.path
        with open(directory / "initrd", "wb") as initrd:
            for archive in (cache.base, *overlays):
                initrd.write(Path(archive).read_bytes())
        words = ["console=ttyS0 loglevel=3 panic=-1 mitigations=off tsc=reliable", f"tsc_early_khz={tsc_khz}",
                 f"amdv.name={name}", f"amdv.channels={CHANNELS}"]
        if address:
            words.append(f"amdv.ip={address}/24")
        machine = ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cpus),
                   "-m", str(memory_mib), "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none", "-kernel",
                   str(cache.kernel), "-initrd", str(directory / "initrd"), "-append", " ".join(words)]
        if disk is not None:
            machine += ["-drive", f"if=none,id=disk,format=raw,file={disk},file.locking=off",
                        "-device", "virtio-blk-device,drive=disk,share-rw=on"]
        if console is None:
            console = f"file,path={directory}/console"
        if tsc_seconds:
            nowhere = socket.socketpair() if link is not None else (None,)
            amdv_tsc.save_with_tsc(machine + self._devices(nowhere[0], "null", [None] * CHANNELS), nowhere[0],
                                   tsc_seconds * tsc_khz * 1000, directory / "state", end_with_parent)
            with open(directory / "state", "rb") as state:
                self._start([*machine, "-incoming", f"fd:{state.fileno()}"], link, console, state.fileno())
            amdv_tsc.resume(self.monitor)
        else:
            self._start(machine, link, console)

    def _devices(self, link, console, channels):
        """A machine has the same devices, whatever they are connected to: a saved state fits."""
        words = ["-chardev", f"{console},id=console", "-serial", "chardev:console",
                 "-device", f"virtio-serial-device,max_ports={CHANNELS + 1}"]
        if link is not None:
            words += ["-netdev", f"stream,id=net,addr.type=fd,addr.str={link.fileno()}",
                      "-device", f"virtio-net-device,netdev=net,mac=52:54:00:00:00:{ord(self.name[0]):02x}"]
        for number, channel in enumerate(channels, 1):
            end = "null" if channel is None else f"socket,fd={channel.theirs.fileno()}"
            words += ["-chardev", f"{end},id=channel{number}",
                      "-device", f"virtserialport,chardev=channel{number},nr={number}"]
        return words

    def _start(self, machine, link, console, *descriptors):
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), *descriptors, *(channel.theirs.fileno() for channel in self.channels)]
        if link is not None:
            descriptors.append(link.fileno())
        self.process = subprocess.Popen(
            [*machine, *self._devices(link, console, self.channels), "-chardev",
             f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"],
            stdin=None if console.startswith("stdio") else subprocess.DEVNULL, pass_fds=descriptors,
            preexec_fn=end_with_parent)
        for end in (theirs, *(channel.theirs for channel in self.channels)):
            end.close()
        self.monitor = amdv_tsc.Monitor(ours)

    def wait_until_up(self):
        channel = self.channels[0]
        channel.socket.settimeout(BOOT_SECONDS)
        try:
            booted = self.run("true")[0] == 0
        except TimeoutError:
            booted = False
        channel.socket.settimeout(None)
        if not booted:
            console = self.scratch.path / "console"
            words = console.read_text(errors="replace")[-2000:] if console.exists() else ""
            raise Crashed(f"host {self.name} did not come up; its last words:\n{words}")
        self.boot_cpu_seconds = self.cpu_seconds()  # to compare others with

    def start(self, command, interactive=False):
        """Starts a line for the shell. `interactive`: its standard input is the channel's."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.unused, CHANNEL_SECONDS):
                raise RuntimeError(f"all {CHANNELS} channels of host {self.name} are in use: {command}")
            channel = self.unused.pop(0)
        return Command(self, channel, command, interactive)

    def run(self, command):
        """The exit status of a line for the shell, and what it wrote."""
        running = self.start(command)
        output = b"".join(running.stdout).decode(errors="replace")
        return running.returncode, output

    def free(self, channel):
        with self.changed:
            self.unused.append(channel)
            self.changed.notify()

    def cpu_seconds(self):
        """What the machine has cost so far: the time that a step takes here when nothing else runs."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc(5)

    def check(self):
        """Raises Crashed when QEMU has ended; it has said why on standard error."""
        if any(channel.over for channel in self.channels):
            self.process.wait()  # it closes them before it has ended
        if self.process.poll() is not None:
            raise Crashed(f"host {self.name} ended by itself")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.scratch.remove()


class Hosts:
    """One or two hosts; two are joined by a network, 10.9.0.1 and 10.9.0.2. `tsc_seconds` is how far the TSC of the second
    is ahead; `console` is the first one's; `disk_mib` is the size of a disk that all of them have."""

    def __init__(self, cache, overlays, count=1, tsc_seconds=0, disk_mib=0, console=None, **options):
        self.scratch = Scratch(cache)
        disk = self.scratch.path / "disk" if disk_mib else None
        if disk:
            disk.touch()
            os.truncate(disk, disk_mib << 20)
        links = socket.socketpair() if count == 2 else (None,)
        self.hosts = []
        # One for both, as they have one TSC: kvmclock of two kernels that differ runs at two rates.
        tsc_khz = amdv_tsc.tsc_khz()
        try:
            for number, link in enumerate(links):
                self.hosts.append(Host(cache, overlays, tsc_khz, name="ab"[number], link=link,
                                       address=f"10.9.0.{number + 1}" if link else None,
                                       tsc_seconds=tsc_seconds * number,
                                       disk=disk, console=None if number else console,
                                       **options))
            for host in self.hosts:
                host.wait_until_up()
        except BaseException:
            self.close()
            raise
        finally:
            for link in links:
                if link is not None:
                    link.close()

    def close(self):
        for host in self.hosts:
            host.close()
        self.scratch.remove()

    def __enter__(self):
        return self.hosts

    def __exit__(self, *failure):
        self.close()


def attempt(function, attempts=2):
    """What the function returns, which makes hosts of its own; again when one of them crashes."""
    for left in reversed(range(attempts)):
        try:
            return function()
        except Crashed as crash:
            print(f"{crash}\n{'once more' if left else 'that was the last attempt'}", flush=True)
    return None
