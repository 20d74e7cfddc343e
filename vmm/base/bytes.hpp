// Little-endian bytes with limits: the reader says "no" instead of trusting a length.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace vmm {

using Bytes = std::vector<std::byte>;

// Little-endian is the only byte order we build for (CMakeLists.txt refuses others), so a copy is the
// conversion.
template <std::unsigned_integral T>
T load_le(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <std::unsigned_integral T>
void store_le(std::byte* to, T value) {
    std::memcpy(to, &value, sizeof value);
}

class ByteWriter {
  public:
    explicit ByteWriter(Bytes& out) : out_(out) {}

    template <std::unsigned_integral T>
    void put(T value) {
        const std::size_t at = out_.size();
        out_.resize(at + sizeof value);
        store_le(out_.data() + at, value);
    }
    void put(std::span<const std::byte> bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }

  private:
    Bytes& out_;
};

class ByteReader {
  public:
    explicit ByteReader(std::span<const std::byte> in) : in_(in) {}

    std::size_t left() const { return in_.size(); }

    // False, and nothing is taken, when fewer bytes are left than asked for.
    template <std::unsigned_integral T>
    [[nodiscard]] bool get(T& value) {
        if (in_.size() < sizeof value) {
            return false;
        }
        value = load_le<T>(in_.data());
        in_ = in_.subspan(sizeof value);
        return true;
    }
    [[nodiscard]] bool get(std::size_t count, std::span<const std::byte>& bytes) {
        if (in_.size() < count) {
            return false;
        }
        bytes = in_.first(count);
        in_ = in_.subspan(count);
        return true;
    }

  private:
    std::span<const std::byte> in_;
};

template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
    return std::as_bytes(std::span{&object, std::size_t{1}});
}

}  // namespace vmm
