// String instructions where they hurt: repeated IN and OUT whose elements reach into a device or whose memory
// crosses a page, and repeated moves across the last window of a device, and across the end of RAM.

#include "hostile_mode.hpp"
#include "runtime/abi.h"
#include "runtime/memory.hpp"

namespace hostile {

namespace {

using guest::Fields;
using guest::kPageSize;

constexpr uint16_t kNoDevice = 0x1000;
constexpr uint16_t kIntoSerial = SERIAL_DATA - 2;  // four bytes from here have two of the port's registers
constexpr uint64_t kCount = 12;
constexpr uint8_t kCanary = 0x5a;

constinit uint64_t rounds = 0;
constinit uint8_t* buffer = nullptr;     // two pages
constinit uint8_t* last_page = nullptr;  // of RAM
constinit uint64_t top = 0;              // the end of RAM, if last_page is there

void fill(uint8_t value) {
    for (uint64_t i = 0; i < 2 * kPageSize; ++i) {
        buffer[i] = value;
    }
}

[[noreturn]] void fail_at(const char* reason, uint64_t offset) {
    guest::fail(Fields().text("reason", reason).number("offset", offset).hex("got", buffer[offset]));
}

// `count` bytes at the offset are ones, and those around them as they were.
void check_buffer(uint64_t offset, uint64_t count) {
    for (uint64_t i = offset - 64; i < offset + count + 64; ++i) {
        const bool inside = i >= offset && i < offset + count;
        if (inside ? strict && buffer[i] != 0xff : buffer[i] != kCanary) {
            fail_at(inside ? "string_not_ones" : "string_out_of_place", i);
        }
    }
}

void input_string(uint16_t port, uint64_t size) {
    // Across the border of its two pages, and that in the middle of an element.
    const uint64_t offset = kPageSize - 3 * size + (size > 1 ? 1 : 0);
    fill(kCanary);
    void* to = buffer + offset;
    uint64_t count = kCount;
    if (size == 1) {
        asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(port) : "memory");
    } else if (size == 2) {
        asm volatile("rep insw" : "+D"(to), "+c"(count) : "d"(port) : "memory");
    } else {
        asm volatile("rep insl" : "+D"(to), "+c"(count) : "d"(port) : "memory");
    }
    check_buffer(offset, kCount * size);
}

void output_string(uint16_t port, uint64_t size) {
    const void* from = buffer + kPageSize - 3 * size + (size > 1 ? 1 : 0);
    uint64_t count = kCount;
    if (size == 1) {
        asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
    } else if (size == 2) {
        asm volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(port) : "memory");
    } else {
        asm volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(port) : "memory");
    }
}

void move(uint64_t to, uint64_t from, uint64_t words) {
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

void move_bytes(uint64_t to, uint64_t from, uint64_t bytes) {
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

// Out of the last window into what is behind it, and back.
void across_window() {
    const uint64_t border = kWindowsEnd - 20;
    const uint64_t offset = kPageSize - 20;
    fill(kCanary);
    move(border, reinterpret_cast<uint64_t>(buffer), 5);
    move(reinterpret_cast<uint64_t>(buffer) + offset, border, 5);
    check_buffer(offset, 40);
    fill(kCanary);
    move_bytes(border, reinterpret_cast<uint64_t>(buffer), 40);
    move_bytes(reinterpret_cast<uint64_t>(buffer) + offset, border, 40);
    check_buffer(offset, 40);
}

// Half of it is RAM.
void across_ram_end() {
    fill(kCanary);
    for (uint64_t i = 0; i < 4; ++i) {
        buffer[i] = static_cast<uint8_t>(rounds + i);
    }
    last_page[kPageSize - 5] = kCanary;
    move(top - 4, reinterpret_cast<uint64_t>(buffer), 1);
    for (uint64_t i = 0; i < 4; ++i) {
        if (last_page[kPageSize - 4 + i] != buffer[i] || last_page[kPageSize - 5] != kCanary) {
            guest::fail(Fields().text("reason", "ram_end_not_written").number("byte", i));
        }
    }
    uint64_t value = 0;
    move(reinterpret_cast<uint64_t>(&value), top - 4, 1);
    check_ones("memory", top, 4, value >> 32);
}

void start(const guest::Parameters&, Fields& ready) {
    last_page = static_cast<uint8_t*>(guest::memory().take_contiguous(kPageSize));
    buffer = static_cast<uint8_t*>(guest::memory().take_contiguous(2 * kPageSize));
    guest::memory().map_device(kWindowsEnd - kPageSize);
    if (reinterpret_cast<uint64_t>(last_page) + kPageSize == ram_end()) {
        top = ram_end();
        guest::memory().map_device(top);
    }
    ready.number("ram_end", top != 0 ? 1 : 0);
}

void step() {
    constexpr uint64_t kSizes[] = {1, 2, 4};
    const uint64_t size = kSizes[rounds / 5 % 3];
    switch (rounds++ % 5) {
        case 0:
            input_string(kNoDevice, size);
            break;
        case 1:
            output_string(kNoDevice, size);
            break;
        case 2:
            // Elsewhere such an access may be split, and the serial port take its part.
            if (strict) {
                input_string(kIntoSerial, 4);
                output_string(kIntoSerial, 4);
            }
            break;
        case 3:
            across_window();
            break;
        default:
            if (top != 0) {
                across_ram_end();
            }
    }
}

void report(Fields& fields) {
    fields.number("rounds", rounds);
}

bool verify(Fields&) {
    return true;  // each was checked when it was made
}

}  // namespace

const Mode strings_mode{"strings", start, step, report, verify};

}  // namespace hostile
