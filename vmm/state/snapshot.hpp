// Snapshot: the state of a machine as named, versioned, checksummed sections. STATE.md has the bytes.
#pragma once

#include <string>
#include <vector>

#include "vmm/base/bytes.hpp"
#include "vmm/base/result.hpp"
#include "vmm/state/decode.hpp"
#include "vmm/state/encode.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

struct SnapshotLimits {
    static constexpr std::size_t kSections = 4096;
    static constexpr std::size_t kSectionBytes = std::size_t{1} << 20;
    static constexpr std::size_t kTotalBytes = std::size_t{64} << 20;
    static constexpr std::size_t kNameBytes = 32;
};

class SnapshotWriter {
  public:
    enum class Unknown { must_fail, may_ignore };  // what a reader that does not know the section does

    template <State T>
    void put(std::uint32_t instance, const T& state, Unknown unknown = Unknown::must_fail) {
        add(T::id, instance, unknown, encode(state));
    }
    // The whole snapshot; the writer is empty afterwards.
    Bytes finish();

  private:
    void add(const StateId& id, std::uint32_t instance, Unknown unknown, const Bytes& body);

    std::uint32_t count_ = 0;
    Bytes sections_;
};

// Every section must be taken exactly once; finish() fails if one is left over that the sender did not mark
// as ignorable.
class SnapshotReader {
  public:
    // Checks framing and checksums of the whole input before anything is decoded. Keeps a copy.
    static Result<SnapshotReader> parse(std::span<const std::byte> in);

    template <State T>
    Result<T> take(std::uint32_t instance) {
        const Section* section = TRY(find(T::id, instance));
        return decode<T>(section->body, section->version).context(where(*section));
    }
    bool has(std::string_view name, std::uint32_t instance) const;
    Result<void> finish() const;

  private:
    struct Section {
        std::string name;
        std::uint32_t instance = 0;
        std::uint16_t version = 0;
        bool ignorable = false;
        bool taken = false;
        Bytes body;
    };

    Result<const Section*> find(const StateId& id, std::uint32_t instance);
    static std::string where(const Section& section);

    std::vector<Section> sections_;
};

}  // namespace vmm
