// The encoded form of a value without a copy of its large fields: a boot image is tens of megabytes, and the
// guest runs meanwhile.
#pragma once

#include <vector>

#include "vmm/state/encode.hpp"

namespace vmm {

// Parts of bytes, in order. Those of kReferred bytes and more are the value's own, which must outlive this
// unchanged.
class GatheredBytes {
  public:
    static constexpr std::size_t kReferred = 4096;

    std::size_t size() const { return size_; }
    // Valid until something is added, and no longer than this.
    std::vector<std::span<const std::byte>> parts() const;

    // As of ByteWriter.
    template <std::unsigned_integral T>
    void put(T value) {
        put(bytes_of(value));
    }
    void put(std::span<const std::byte> bytes);

  private:
    // Bytes of the value's, or the next ones of copied_.
    struct Part {
        const std::byte* referred;
        std::size_t size;
    };

    Bytes copied_;
    std::vector<Part> parts_;
    std::size_t size_ = 0;
};

// The same bytes as of encode().
template <typename T>
GatheredBytes encode_in_place(const T& value) {
    GatheredBytes out;
    BasicEncoder<GatheredBytes&> encoder{out};
    T::visit(value, encoder);
    return out;
}

}  // namespace vmm
