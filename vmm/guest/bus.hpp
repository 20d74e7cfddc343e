// Bus: which device answers at an address. One for ports (PIO), one for physical addresses (MMIO).
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <span>

#include "vmm/base/result.hpp"

namespace vmm {

// What a device sees of an access: an offset into its range and 1 to 8 bytes, little-endian. Called on vCPU
// threads, several at a time; the device locks. A guest cannot make these fail: an access that means nothing
// reads as ones.
class BusDevice {
  public:
    virtual ~BusDevice() = default;
    virtual void read(std::uint64_t offset, std::span<std::byte> data) = 0;
    virtual void write(std::uint64_t offset, std::span<const std::byte> data) = 0;
};

class Bus {
  public:
    // Before the first vCPU runs. The device must outlive the bus. Fails when the range is empty, wraps or
    // overlaps.
    Result<void> insert(std::uint64_t start, std::uint64_t size, BusDevice& device);

    // An access that no device covers as a whole reads as ones, writes nothing, and is counted.
    void read(std::uint64_t address, std::span<std::byte> data);
    void write(std::uint64_t address, std::span<const std::byte> data);

    std::uint64_t unassigned_accesses() const { return unassigned_.load(std::memory_order_relaxed); }

  private:
    struct Entry {
        std::uint64_t size;
        BusDevice* device;
    };
    struct Hit {
        BusDevice* device = nullptr;
        std::uint64_t offset = 0;
    };
    Hit find(std::uint64_t address, std::size_t size);

    std::map<std::uint64_t, Entry> entries_;
    std::atomic<std::uint64_t> unassigned_ = 0;
};

}  // namespace vmm
