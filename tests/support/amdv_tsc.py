"""The TSC of an emulated host: how fast it runs, and what it shows when the host starts."""

import ctypes
import json
import mmap
import socket
import struct
import subprocess
import time

# A section of QEMU's migration stream: the length of its name, the name, instance and version (32 bits each, big-endian);
# then the first field of "timer" is what the guest's TSC shows, in ticks (vmstate_timers).
TIMER_SECTION = b"\x05timer" + struct.pack(">II", 0, 2)


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


class Monitor:
    """QEMU's monitor (QMP) on a socket."""

    def __init__(self, connected):
        self.stream = connected.makefile("rw")
        self.stream.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while line := self.stream.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"QEMU: {command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError(f"QEMU ended at {command}")

    def wait_until(self, command, field, reached):
        while self.execute(command).get(field) not in reached:
            time.sleep(0.01)


def save_with_tsc(qemu, link, ticks, path, preexec_fn):
    """The state of a machine that has not run yet, but whose TSC shows `ticks`: for -incoming. QEMU has no option for it and
    starts each TSC at 0. `qemu` is its command line, which names the descriptor of the socket `link`, if there is one."""
    ours, theirs = socket.socketpair()
    descriptors = [end.fileno() for end in (theirs, link) if end is not None]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.socket")
    listener.listen()
    with ours, listener, subprocess.Popen([*qemu, "-S", "-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon",
                                           "chardev=monitor,mode=control"], pass_fds=descriptors,
                                          stdin=subprocess.DEVNULL, preexec_fn=preexec_fn) as process:
        theirs.close()
        try:
            Monitor(ours).execute("migrate", uri=f"unix:{path}.socket")
            with listener.accept()[0].makefile("rb") as stream:
                state = bytearray(stream.read())
        finally:
            process.kill()
    # After all RAM, which may hold the same bytes.
    place = state.rfind(TIMER_SECTION)
    if place < 0:
        raise RuntimeError("QEMU's state has no timer section of version 2")
    struct.pack_into(">q", state, place + len(TIMER_SECTION), ticks)
    path.write_bytes(state)


def resume(monitor):
    """Starts a machine that came in by -incoming, when it is there."""
    monitor.wait_until("query-status", "status", {"prelaunch", "paused"})
    monitor.execute("cont")
