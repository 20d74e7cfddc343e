#!/usr/bin/python3
"""How long Linux takes to the first word of its initramfs under vmm, and under QEMU (-M microvm with qboot) in the same
emulated host, in turn. Prints seconds and the ratio. Not a test: `boot_ratio.py --build build [--runs 3]`."""

import argparse
import re
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import amdv_host, amdv_overlay, linux_guest  # noqa: E402

LINUX = f"{amdv_overlay.PLACE}/build/guests/linux"
FIRMWARE = ("qboot.rom", "bios-microvm.bin", "linuxboot_dma.bin", "pvh.bin")
PARAMETERS = "'console=ttyS0 quiet noxsave'"
COMMANDS = {
    "vmm": f"vmm run --name boot -m 128M --serial file:/tmp/serial --append {PARAMETERS} --initrd {LINUX}/initrd.cpio "
           f"{LINUX}/{{kernel}}",
    "qemu": "qemu-system-x86_64 -M microvm,accel=kvm -bios /usr/share/qemu/qboot.rom -cpu host -m 128 -nodefaults "
            f"-no-user-config -display none -serial file:/tmp/serial -no-reboot -kernel {LINUX}/{{kernel}} -initrd "
            f"{LINUX}/initrd.cpio -append {PARAMETERS}",
}


def measure(host, command):
    """Seconds of the host's own clock."""
    status, output = host.run(
        "rm -f /tmp/serial; read -r begin _ </proc/uptime; "
        f"{command} >/tmp/log 2>&1 & until grep -q '^linux boot' /tmp/serial 2>/dev/null; do usleep 20000; "
        "kill -0 $! || { cat /tmp/log; exit 1; }; done; read -r end _ </proc/uptime; kill -9 $!; echo $begin $end")
    if status != 0:
        raise SystemExit(f"{command}: {output}")
    begin, end = map(float, re.search(r"([\d.]+) ([\d.]+)\s*$", output).groups())
    return end - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    linux_guest.Image(options.build)
    cache = amdv_host.Cache(options.build)
    qemu = amdv_overlay.Overlay().add_program("/usr/bin/qemu-system-x86_64")
    for path in Path("/usr/share").rglob("*"):
        if path.name in FIRMWARE:
            qemu.add(path.resolve(), f"/usr/share/qemu/{path.name}")
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "qemu.cpio"
        qemu.pack(archive)
        with amdv_host.Hosts(cache, [amdv_overlay.packed(cache, options.build, linux=True), archive]) as (host,):
            for kernel in ("vmlinux", "vmlinuz"):
                seconds = {who: [] for who in COMMANDS}
                for _ in range(options.runs):
                    for who, command in COMMANDS.items():
                        seconds[who].append(measure(host, command.format(kernel=kernel)))
                medians = {who: statistics.median(values) for who, values in seconds.items()}
                print(f"{kernel}: vmm {medians['vmm']:.1f} s, QEMU {medians['qemu']:.1f} s, ratio "
                      f"{medians['vmm'] / medians['qemu']:.2f}; {seconds}", flush=True)


if __name__ == "__main__":
    main()
