#pragma once

#include <stdint.h>

#include "runtime/guest.hpp"

namespace hostile {

// One way to misbehave. What each function does is as in runtime/guest.hpp.
struct Mode {
    const char* name;
    void (*start)(const guest::Parameters& parameters, guest::Fields& ready);
    void (*step)();
    void (*report)(guest::Fields& fields);
    bool (*verify)(guest::Fields& findings);
};

extern const Mode ports_mode;
extern const Mode mmio_mode;
extern const Mode strings_mode;
extern const Mode storm_mode;
extern const Mode tables_mode;

// What a read of `size` bytes (1, 2, 4 or 8) must give where no device answers.
constexpr uint64_t ones(uint64_t size) {
    return ~uint64_t{0} >> (64 - 8 * size);
}

// Whether the machine promises ones there (strict=1, the default): QEMU, for one, does not.
extern bool strict;

// Ends the guest, unless `value`, read from `address`, is what it must be.
void check_ones(const char* where, uint64_t address, uint64_t size, uint64_t value);

// The first page behind the last window that the machine has for virtio devices, and the address behind RAM.
inline constexpr uint64_t kWindowsEnd = 0xd0008000;
uint64_t ram_end();

}  // namespace hostile
