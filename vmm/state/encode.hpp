// Encoder: fields in order, fixed width, little-endian, no padding; lists and bytes behind a u32 count.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "vmm/base/bytes.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

// Writer: ByteWriter, or what has its put().
template <typename Writer>
class BasicEncoder {
  public:
    template <typename Out>
    explicit BasicEncoder(Out& out) : writer_(out) {}

    template <ScalarField T>
    void field(const char*, const T& value) {
        writer_.put(static_cast<WireType<T>>(value));
    }
    template <ScalarField T, std::size_t N>
    void field(const char* name, const std::array<T, N>& values) {
        for (const T& value : values) {
            field(name, value);
        }
    }
    template <typename E>
    void enumeration(const char*, const E& value, E) {
        writer_.put(static_cast<std::uint8_t>(value));
    }
    template <RawField T>
    void raw(const char*, const T& value) {
        writer_.put(static_cast<std::uint32_t>(sizeof value));
        writer_.put(bytes_of(value));
    }
    void bytes(const char*, const Bytes& value, std::size_t limit) {
        VERIFY(value.size() <= limit);
        writer_.put(static_cast<std::uint32_t>(value.size()));
        writer_.put(value);
    }
    void text(const char*, const std::string& value, std::size_t limit) {
        VERIFY(value.size() <= limit);
        writer_.put(static_cast<std::uint32_t>(value.size()));
        writer_.put(std::as_bytes(std::span{value}));
    }
    template <typename T>
    void list(const char* name, const std::vector<T>& values, std::size_t limit) {
        VERIFY(values.size() <= limit);
        writer_.put(static_cast<std::uint32_t>(values.size()));
        for (const T& value : values) {
            if constexpr (ScalarField<T>) {
                field(name, value);
            } else {
                part(name, value);
            }
        }
    }
    template <typename T>
    void part(const char*, const T& value) {
        T::visit(value, *this);
    }
    bool since(std::uint16_t) { return true; }
    void check(bool, const char*) {}

  private:
    Writer writer_;
};

using Encoder = BasicEncoder<ByteWriter>;

template <typename T>
Bytes encode(const T& value) {
    Bytes out;
    Encoder encoder{out};
    T::visit(value, encoder);
    return out;
}

}  // namespace vmm
