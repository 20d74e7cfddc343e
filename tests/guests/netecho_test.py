#!/usr/bin/python3
"""netecho.elf on QEMU's network device, against a peer made here: every answer, byte for byte and checksum."""

import argparse
import queue
import socket
import struct
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from qemu_guest import DEADLINE, QemuGuest, skip_without_qemu  # noqa: E402

GUEST_MAC = bytes.fromhex("525400123456")
PEER_MAC = bytes.fromhex("525400654321")
GUEST_IP = socket.inet_aton("10.9.0.2")
PEER_IP = socket.inet_aton("10.9.0.1")
BROADCAST = b"\xff" * 6
ARP, IPV4 = 0x0806, 0x0800
ICMP, UDP = 1, 17


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(kind, payload, to=GUEST_MAC):
    return to + PEER_MAC + struct.pack(">H", kind) + payload


def ipv4(protocol, payload):
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, PEER_IP, GUEST_IP)
    return ethernet(IPV4, header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload)


def udp_sum(source, destination, datagram):
    return checksum(source + destination + struct.pack(">BBH", 0, UDP, len(datagram)) + datagram)


def udp(to_port, data, from_port=4000, right=True):
    datagram = struct.pack(">HHHH", from_port, to_port, 8 + len(data), 0) + data
    total = udp_sum(PEER_IP, GUEST_IP, datagram) ^ (0 if right else 1)
    return ipv4(UDP, datagram[:6] + struct.pack(">H", total or 0xFFFF) + data)


def icmp(kind, rest):
    message = struct.pack(">BBH", kind, 0, 0) + rest
    return ipv4(ICMP, message[:2] + struct.pack(">H", checksum(message)) + rest)


def arp(operation, sender_mac, sender_ip, target_mac, target_ip):
    return struct.pack(">HHBBH6s4s6s4s", 1, IPV4, 6, 4, operation, sender_mac, sender_ip, target_mac, target_ip)


class Guest(QemuGuest):
    def __init__(self, image, command_line):
        self.frames = queue.SimpleQueue()
        super().__init__("net", image, command_line)

    def prepare(self):
        self.net = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.net.bind(str(self.scratch / "peer"))
        threading.Thread(target=self._read_frames, daemon=True).start()

    def _read_frames(self):
        """All the time: a socket of this kind holds ten frames, and the guest sends on."""
        while True:
            self.frames.put(self.net.recv(2048))

    def send(self, frame):
        self.net.sendto(frame, str(self.scratch / "guest"))

    def receive(self, wanted):
        """The first frame that satisfies `wanted`: (the Ethernet type, what follows it). Every IP frame before it is
        checked as well."""
        while True:
            frame = self.frames.get(timeout=DEADLINE)
            kind = struct.unpack(">H", frame[12:14])[0]
            if frame[6:12] != GUEST_MAC:
                continue
            if kind == IPV4:
                self.check_ip(frame[14:])
            if wanted(kind, frame[14:]):
                return frame[14:]

    @staticmethod
    def check_ip(packet):
        assert checksum(packet[:20]) == 0, f"IP checksum: {packet.hex()}"
        assert packet[12:16] == GUEST_IP and struct.unpack(">H", packet[2:4])[0] == len(packet), packet.hex()
        if packet[9] == UDP:
            assert udp_sum(GUEST_IP, packet[16:20], packet[20:]) == 0, f"UDP checksum: {packet.hex()}"


def is_gratuitous(kind, packet):
    return kind == ARP and packet[14:18] == GUEST_IP and packet[24:28] == GUEST_IP


def resolve(guest):
    guest.send(ethernet(ARP, arp(1, PEER_MAC, PEER_IP, bytes(6), GUEST_IP), BROADCAST))
    reply = guest.receive(lambda kind, packet: kind == ARP and packet[6:8] == b"\0\2")
    assert reply[:28] == arp(2, GUEST_MAC, GUEST_IP, PEER_MAC, PEER_IP), reply.hex()


def echo_icmp(guest):
    for size in (0, 1, 55, 56, 1464):
        rest = struct.pack(">HH", 7, size) + bytes(range(256)) * 6
        guest.send(icmp(8, rest[:4 + size]))
        reply = guest.receive(lambda kind, packet: kind == IPV4 and packet[9] == ICMP)
        assert checksum(reply[20:]) == 0 and reply[20:22] == b"\0\0" and reply[24:] == rest[:4 + size], reply.hex()


def echo_udp(guest, count):
    for number in range(count):
        data = struct.pack(">I", number) * (number % 367)
        guest.send(udp(7, data, from_port=4000 + number % 100))
        reply = guest.receive(lambda kind, packet: kind == IPV4 and packet[9] == UDP and packet[20:22] == b"\0\7")
        assert reply[22:24] == struct.pack(">H", 4000 + number % 100) and reply[28:] == data, reply.hex()


def heartbeats(guest, count):
    """In order, without a gap; sent back, so that the guest counts them too."""
    last = None
    for _ in range(count):
        packet = guest.receive(lambda kind, p: kind == IPV4 and p[9] == UDP and p[20:22] == struct.pack(">H", 7001))
        number = struct.unpack(">Q", packet[28:36])[0]
        assert last is None or number == last + 1, f"{last}, then {number}"
        last = number
        guest.send(udp(7001, packet[28:], from_port=7001))


def run(image, extra):
    with Guest(image, f"ip=10.9.0.2 peer=10.9.0.1 beat_ms=20 {extra}") as guest:
        guest.receive(is_gratuitous)
        guest.expect("ready")
        resolve(guest)
        echo_icmp(guest)
        echo_udp(guest, 400)
        heartbeats(guest, 5)
        guest.send(udp(7, b"damaged", right=False))
        guest.send(udp(9, b"nobody"))
        if "announce=0" not in extra:
            # What QEMU does when it has been moved.
            guest.qmp("announce-self", initial=50, max=550, rounds=1, step=50)
            guest.receive(is_gratuitous)
        resolve(guest)  # answered after all the above
        status = guest.ask("status")
        assert status["bad_checksums"] == "1" and status["udp"] == "400" and status["icmp"] == "5", status
        assert status["answers"] == "5" and status["late_answers"] == "0" and status["lost_answers"] == "0", status
        assert status["announcements"] == ("1" if "announce=0" in extra else "2"), status
        guest.ask("finish", "PASS")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    options = parser.parse_args()
    skip_without_qemu()
    for extra in ("", "irq=0", "event_idx=0 indirect=0 qsize=16", "csum=1", "announce=0"):
        run(options.image, extra)


if __name__ == "__main__":
    main()
