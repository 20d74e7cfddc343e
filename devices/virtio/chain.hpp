// Chain: one request of a driver, as the device has read it: where to read, where to write.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/guest/memory.hpp"

namespace devices::virtio {

// A piece of guest memory that is RAM: who made it has checked.
struct Segment {
    vmm::Gpa gpa;
    std::uint32_t size = 0;  // bytes
};

// Pieces one after another, as if they were one.
class Segments {
  public:
    void add(Segment segment) {
        list_.push_back(segment);
        size_ += segment.size;
    }
    std::uint64_t size() const { return size_; }  // bytes

    // Copies from `offset` on and returns how much that was: less than asked for at the end only.
    std::size_t read(const vmm::GuestMemory& memory, std::uint64_t offset, std::span<std::byte> to) const;
    std::size_t write(vmm::GuestMemory& memory, std::uint64_t offset, std::span<const std::byte> from) const;

  private:
    // Calls `copy` with each piece of [offset, offset + size): its address, where it is in the copy, how long
    // it is.
    template <typename Copy>
    std::size_t for_each(std::uint64_t offset, std::size_t size, Copy copy) const {
        std::size_t done = 0;
        for (const Segment& segment : list_) {
            if (offset >= segment.size) {
                offset -= segment.size;
                continue;
            }
            const std::size_t count = std::min<std::size_t>(segment.size - offset, size - done);
            if (count == 0) {
                break;
            }
            copy(segment.gpa + offset, done, count);
            done += count;
            offset = 0;
        }
        return done;
    }

    std::vector<Segment> list_;
    std::uint64_t size_ = 0;
};

struct Chain {
    std::uint16_t head = 0;  // names it in the used ring
    Segments readable;
    Segments writable;
};

}  // namespace devices::virtio
