// Decoder: the input is hostile. Every count is checked against the limit declared at its field, and memory
// grows only as elements are really read. After the first error the remaining fields keep their defaults.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/bytes.hpp"
#include "vmm/base/result.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

class Decoder {
  public:
    Decoder(std::span<const std::byte> in, std::uint16_t version) : reader_(in), version_(version) {}

    template <ScalarField T>
    void field(const char* name, T& value) {
        WireType<T> wire{};
        if (!take(name, wire)) {
            return;
        }
        if constexpr (std::same_as<T, bool>) {
            check(wire <= 1, name);
            value = wire != 0;
        } else {
            value = wire;
        }
    }
    template <ScalarField T, std::size_t N>
    void field(const char* name, std::array<T, N>& values) {
        for (T& value : values) {
            field(name, value);
        }
    }
    template <typename E>
    void enumeration(const char* name, E& value, E last) {
        std::uint8_t wire = 0;
        if (!take(name, wire)) {
            return;
        }
        if (wire > static_cast<std::uint8_t>(last)) {
            stop(fail(Code::corrupt, "{}: value {} is out of range", name, wire));
            return;
        }
        value = static_cast<E>(wire);
    }
    template <RawField T>
    void raw(const char* name, T& value) {
        std::span<const std::byte> in;
        if (!take_bytes(name, sizeof value, in)) {
            return;
        }
        if (in.size() != sizeof value) {
            stop(fail(Code::mismatch, "{}: {} bytes, this host's is {}", name, in.size(), sizeof value));
            return;
        }
        std::memcpy(&value, in.data(), sizeof value);
    }
    void bytes(const char* name, Bytes& value, std::size_t limit) {
        std::span<const std::byte> in;
        if (take_bytes(name, limit, in)) {
            value.assign(in.begin(), in.end());
        }
    }
    void text(const char* name, std::string& value, std::size_t limit) {
        std::span<const std::byte> in;
        if (take_bytes(name, limit, in)) {
            value.assign(reinterpret_cast<const char*>(in.data()), in.size());
        }
    }
    template <typename T>
    void list(const char* name, std::vector<T>& values, std::size_t limit) {
        std::uint32_t count = 0;
        if (!take_count(name, limit, count)) {
            return;
        }
        values.clear();
        for (std::uint32_t i = 0; i < count && !error_; ++i) {
            T value{};
            if constexpr (ScalarField<T>) {
                field(name, value);
            } else {
                part(name, value);
            }
            if (!error_) {
                values.push_back(std::move(value));
            }
        }
    }
    template <typename T>
    void part(const char*, T& value) {
        T::visit(value, *this);
    }
    bool since(std::uint16_t version) { return version_ >= version; }
    void check(bool condition, const char* text) {
        if (!condition) {
            stop(fail(Code::corrupt, "does not hold: {}", text));
        }
    }

    // The first error, or that bytes are left over.
    Result<void> finish() {
        if (error_) {
            return Failure{std::move(*error_)};
        }
        if (reader_.left() != 0) {
            return fail(Code::corrupt, "{} bytes left over", reader_.left());
        }
        return {};
    }

  private:
    template <std::unsigned_integral T>
    bool take(const char* name, T& value) {
        if (error_) {
            return false;
        }
        if (!reader_.get(value)) {
            stop(fail(Code::corrupt, "{}: truncated", name));
            return false;
        }
        return true;
    }
    bool take_count(const char* name, std::size_t limit, std::uint32_t& count) {
        if (!take(name, count)) {
            return false;
        }
        if (count > limit) {
            stop(fail(Code::limit, "{}: {} is more than {}", name, count, limit));
            return false;
        }
        return true;
    }
    bool take_bytes(const char* name, std::size_t limit, std::span<const std::byte>& in) {
        std::uint32_t count = 0;
        if (!take_count(name, limit, count)) {
            return false;
        }
        if (!reader_.get(count, in)) {
            stop(fail(Code::corrupt, "{}: truncated", name));
            return false;
        }
        return true;
    }
    void stop(Failure failure) {
        if (!error_) {
            error_ = std::move(failure.value());
        }
    }

    ByteReader reader_;
    std::uint16_t version_;
    std::optional<Error> error_;
};

// The whole of `in` as one T of `version`; trailing bytes are an error.
template <typename T>
Result<T> decode(std::span<const std::byte> in, std::uint16_t version) {
    T value{};
    Decoder decoder{in, version};
    T::visit(value, decoder);
    TRY(decoder.finish());
    return value;
}

}  // namespace vmm
