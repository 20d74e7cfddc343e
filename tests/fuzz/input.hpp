// What the targets share that need no device: a reader of the input, and checksums made right, which no
// fuzzer finds by chance. Written against STATE.md and PROTOCOL.md, not with our readers.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "vmm/base/bytes.hpp"

namespace fuzz {

// The front of an input; what is not there reads as zeros.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(std::as_bytes(std::span{data, size})) {}
    explicit Input(std::span<const std::byte> bytes) : rest_(bytes) {}

    template <std::unsigned_integral T>
    T take() {
        std::array<std::byte, sizeof(T)> raw{};
        const auto some = take_bytes(sizeof(T));
        std::copy(some.begin(), some.end(), raw.begin());
        return vmm::load_le<T>(raw.data());
    }
    // At most `size`.
    std::span<const std::byte> take_bytes(std::size_t size) {
        const auto front = rest_.first(std::min(size, rest_.size()));
        rest_ = rest_.subspan(front.size());
        return front;
    }
    std::span<const std::byte> rest() const { return rest_; }
    bool empty() const { return rest_.empty(); }

  private:
    std::span<const std::byte> rest_;
};

// Makes the checksums of a snapshot's sections right, as far as these are whole; where the last of them ends.
std::size_t repair_snapshot(std::span<std::byte> bytes);

// A frame in a stream: header, body and payload, each whole.
struct Frame {
    std::span<std::byte> header;
    std::span<std::byte> body;
    std::span<std::byte> payload;
};
// Makes the magic and the checksums right.
void repair(const Frame& frame);
// Repairs each frame of a stream that is whole, then shows it. A later call may change the body and the
// payload, and repair them again.
void for_each_frame(std::span<std::byte> stream, const std::function<void(const Frame&)>& show);

}  // namespace fuzz
