// Oracle: a snapshot that is accepted encodes to the same bytes again, and decodes to the same fields.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/input.hpp"
#include "tests/unit/state/sample.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/describe.hpp"
#include "vmm/state/snapshot.hpp"

namespace {

using tests::Sample;
using tests::SampleV1;
using Unknown = vmm::SnapshotWriter::Unknown;

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
    (void)fuzz::repair_snapshot(bytes);
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
