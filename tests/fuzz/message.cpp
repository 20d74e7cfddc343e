// Oracle: the body of a message that is accepted encodes to the same bytes again.
#include "migration/message.hpp"

#include "tests/fuzz/input.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/decode.hpp"
#include "vmm/state/encode.hpp"

namespace {

template <typename T>
void decode(std::span<const std::byte> body) {
    const auto message = vmm::decode<T>(body, migration::kProtocolVersion);
    if (message) {
        const vmm::Bytes again = vmm::encode(*message);
        VERIFY(std::equal(again.begin(), again.end(), body.begin(), body.end()));
    }
}

template <std::size_t... I>
void decode(std::size_t index, std::span<const std::byte> body, std::index_sequence<I...>) {
    ((I == index ? decode<std::variant_alternative_t<I, migration::Message>>(body) : void()), ...);
}

}  // namespace

// A byte for the type, then a body.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::size_t kTypes = std::variant_size_v<migration::Message>;
    fuzz::Input input{data, size};
    const std::size_t index = input.take<std::uint8_t>() % kTypes;
    decode(index, input.rest(), std::make_index_sequence<kTypes>{});
    return 0;
}
