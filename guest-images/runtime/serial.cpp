#include "runtime/serial.hpp"

#include "runtime/cpu.hpp"

extern "C" {
extern const volatile uint32_t serial_head;
extern const volatile char serial_ring[SERIAL_RING];
}

namespace guest::serial {
namespace {

constexpr uint8_t kTransmitterEmpty = 0x20;

constexpr uint32_t kQueueSize = 8192;
constinit char queue[kQueueSize] = {};
constinit uint32_t queue_head = 0;
constinit uint32_t queue_tail = 0;
constinit uint32_t ring_tail = 0;

}  // namespace

void start() {
    out8(SERIAL_DATA + 3, 0x80);  // divisor latch: 115200 baud
    out8(SERIAL_DATA, 1);
    out8(SERIAL_DATA + 1, 0);
    out8(SERIAL_DATA + 3, 0x03);  // 8 data bits, no parity, 1 stop bit
    out8(SERIAL_DATA + 2, 0x07);  // FIFOs on and empty, receive trigger at one byte
    out8(SERIAL_DATA + 4, 0x0b);  // DTR, RTS, and OUT2, which gates the interrupt on PCs
    out8(SERIAL_DATA + 1, 0x01);  // receive interrupt
}

void put(char c) {
    while (queue_head - queue_tail == kQueueSize) {
        pump();
    }
    queue[queue_head++ % kQueueSize] = c;
}

void pump() {
    if (queue_head != queue_tail && (in8(SERIAL_LINE_STATUS) & kTransmitterEmpty) != 0) {
        out8(SERIAL_DATA, static_cast<uint8_t>(queue[queue_tail++ % kQueueSize]));
    }
}

void flush() {
    while (queue_head != queue_tail) {
        pump();
    }
}

bool busy() {
    return queue_head != queue_tail || serial_head != ring_tail;
}

bool take(char& c) {
    if (serial_head == ring_tail) {
        return false;
    }
    c = serial_ring[ring_tail];
    ring_tail = (ring_tail + 1) % SERIAL_RING;
    return true;
}

}  // namespace guest::serial
