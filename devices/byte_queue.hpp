// ByteQueue: a ring of bytes of fixed capacity.
#pragma once

#include <cstddef>
#include <span>

#include "vmm/base/bytes.hpp"

namespace devices {

class ByteQueue {
  public:
    explicit ByteQueue(std::size_t capacity) : ring_(capacity) {}

    std::size_t size() const { return size_; }
    std::size_t room() const { return ring_.size() - size_; }
    bool empty() const { return size_ == 0; }

    // There must be room.
    void push(std::byte value);
    // The oldest bytes that lie in one piece; valid until the next change other than push().
    std::span<const std::byte> front() const;
    // Drops the oldest `count` bytes, of which there must be so many.
    void pop(std::size_t count);
    void clear() { pop(size_); }

    vmm::Bytes copy() const;
    // Replaces the contents; `bytes` must fit.
    void assign(std::span<const std::byte> bytes);

  private:
    vmm::Bytes ring_;
    std::size_t head_ = 0;
    std::size_t size_ = 0;
};

}  // namespace devices
