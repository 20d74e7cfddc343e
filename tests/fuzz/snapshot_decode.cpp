// Oracle: a snapshot that is accepted encodes to the same bytes again, and decodes to the same fields.
#include <xxhash.h>

#include <cstddef>
#include <cstdint>

#include "tests/unit/state/sample.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/describe.hpp"
#include "vmm/state/snapshot.hpp"

namespace {

using tests::Sample;
using tests::SampleV1;
using Unknown = vmm::SnapshotWriter::Unknown;

constexpr std::size_t kHeaderBytes = 16;
// After the name: instance, version, flags, length, checksum.
constexpr std::size_t kLengthOffset = 8;
constexpr std::size_t kChecksumOffset = 12;
constexpr std::size_t kAfterName = 20;

// Makes every checksum right, which no fuzzer finds by chance. Written against STATE.md, not with the reader.
void repair(vmm::Bytes& bytes) {
    for (std::size_t at = kHeaderBytes; at < bytes.size();) {
        at += 1 + std::to_integer<std::size_t>(bytes[at]);
        if (at > bytes.size() || bytes.size() - at < kAfterName) {
            return;
        }
        const std::size_t length = vmm::load_le<std::uint32_t>(bytes.data() + at + kLengthOffset);
        if (length > bytes.size() - at - kAfterName) {
            return;
        }
        vmm::store_le<std::uint64_t>(bytes.data() + at + kChecksumOffset,
                                     XXH3_64bits(bytes.data() + at + kAfterName, length));
        at += kAfterName + length;
    }
}

template <typename T>
vmm::Bytes written(const T& state, Unknown unknown) {
    vmm::SnapshotWriter writer;
    writer.put(0, state, unknown);
    return writer.finish();
}

SampleV1 as_version_1(const Sample& s) {
    SampleV1 old;
    old.index = s.index;
    old.ports = s.ports;
    old.enabled = s.enabled;
    old.mode = s.mode;
    old.registers = s.registers;
    old.blob = s.blob;
    old.label = s.label;
    old.timers = s.timers;
    old.numbers = s.numbers;
    old.watchdog = s.watchdog;
    return old;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto input = std::as_bytes(std::span{data, size});
    (void)vmm::SnapshotReader::parse(input);
    vmm::Bytes bytes{input.begin(), input.end()};
    repair(bytes);
    auto reader = vmm::SnapshotReader::parse(bytes);
    if (!reader) {
        return 0;
    }
    const auto state = reader->take<Sample>(0);
    if (!state || !reader->finish()) {
        return 0;
    }
    const vmm::Bytes again = written(*state, Unknown::must_fail);
    auto second = vmm::SnapshotReader::parse(again);
    VERIFY(second.has_value());
    const auto same = second->take<Sample>(0);
    VERIFY(same.has_value() && vmm::first_difference(*state, *same).empty());
    // Sections that may be ignored were dropped; with one section alone, it is one of four spellings of the
    // state.
    if (vmm::load_le<std::uint32_t>(bytes.data() + 12) == 1) {
        const SampleV1 old = as_version_1(*state);
        VERIFY(bytes == again || bytes == written(*state, Unknown::may_ignore) ||
               bytes == written(old, Unknown::must_fail) || bytes == written(old, Unknown::may_ignore));
    }
    return 0;
}
