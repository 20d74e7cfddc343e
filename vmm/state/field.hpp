// The contract between a state struct and the visitors that encode, decode, describe and compare it.
//
// A struct names its fields once:
//
//     struct RtcState {
//         static constexpr StateId id{"rtc-cmos", 1, 1};
//         std::uint8_t index = 0;
//         std::array<std::uint8_t, 128> ram{};
//
//         template <typename Self, typename V>
//         static void visit(Self& self, V& v) {
//             v.field("index", self.index);
//             v.check(self.index < 128, "index < 128");
//             v.field("ram", self.ram);
//         }
//     };
//
// A visitor V offers:
//     field(name, x)              unsigned integer, bool, or std::array of unsigned integers
//     enumeration(name, x, last)  enum class whose values are 0 .. last
//     raw(name, x)                a trivially copyable struct of a stable ABI (KVM UAPI), length-checked
//     bytes(name, x, limit)       Bytes, at most `limit` long
//     text(name, x, limit)        std::string, at most `limit` bytes
//     list(name, x, limit)        std::vector of structs with visit(), or of unsigned integers
//     part(name, x)               a struct with visit()
//     since(version)              true when fields that came with `version` are present; they come last
//     check(condition, text)      what must hold; on decoding a failure is an error, elsewhere it does
//                                 nothing
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace vmm {

struct StateId {
    std::string_view name;  // at most 32 bytes
    std::uint16_t current;  // what we write
    std::uint16_t oldest;   // what we still read
};

template <typename T>
concept State = requires {
    { T::id } -> std::convertible_to<StateId>;
};

// bool is a byte on the wire, 0 or 1.
template <typename T>
concept ScalarField = std::unsigned_integral<T>;

template <ScalarField T>
using WireType = std::conditional_t<std::same_as<T, bool>, std::uint8_t, T>;

template <typename T>
concept RawField = std::is_trivially_copyable_v<T> && std::is_class_v<T>;

}  // namespace vmm
