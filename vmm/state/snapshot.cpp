#include "vmm/state/snapshot.hpp"

#include <xxhash.h>

#include <algorithm>

#include "vmm/base/check.hpp"

namespace vmm {

namespace {

constexpr std::uint64_t kMagic = 0x3154'4957'444f'47ff;  // "\xffGODWIT1"
constexpr std::uint32_t kFormatVersion = 1;
constexpr std::uint16_t kIgnorable = 1;

}  // namespace

void SnapshotWriter::add(const StateId& id, std::uint32_t instance, Unknown unknown, const Bytes& body) {
    VERIFY(id.name.size() <= SnapshotLimits::kNameBytes && body.size() <= SnapshotLimits::kSectionBytes);
    VERIFY(count_ < SnapshotLimits::kSections);
    ByteWriter out{sections_};
    out.put(static_cast<std::uint8_t>(id.name.size()));
    out.put(std::as_bytes(std::span{id.name}));
    out.put(instance);
    out.put(id.current);
    out.put(unknown == Unknown::may_ignore ? kIgnorable : std::uint16_t{0});
    out.put(static_cast<std::uint32_t>(body.size()));
    out.put(static_cast<std::uint64_t>(XXH3_64bits(body.data(), body.size())));
    out.put(body);
    ++count_;
}

Bytes SnapshotWriter::finish() {
    Bytes all;
    ByteWriter out{all};
    out.put(kMagic);
    out.put(kFormatVersion);
    out.put(std::exchange(count_, 0));
    out.put(std::exchange(sections_, {}));
    VERIFY(all.size() <= SnapshotLimits::kTotalBytes);
    return all;
}

Result<SnapshotReader> SnapshotReader::parse(std::span<const std::byte> in) {
    if (in.size() > SnapshotLimits::kTotalBytes) {
        return fail(Code::limit, "snapshot: {} bytes are more than {}", in.size(),
                    SnapshotLimits::kTotalBytes);
    }
    ByteReader reader{in};
    std::uint64_t magic = 0;
    std::uint32_t format = 0;
    std::uint32_t count = 0;
    if (!reader.get(magic) || magic != kMagic) {
        return fail(Code::corrupt, "snapshot: this is not a Godwit snapshot");
    }
    if (!reader.get(format)) {
        return fail(Code::corrupt, "snapshot: truncated header");
    }
    if (format != kFormatVersion) {
        return fail(Code::version, "snapshot: format {} is not known here, only {}", format, kFormatVersion);
    }
    if (!reader.get(count)) {
        return fail(Code::corrupt, "snapshot: truncated header");
    }
    if (count > SnapshotLimits::kSections) {
        return fail(Code::limit, "snapshot: {} sections are more than {}", count, SnapshotLimits::kSections);
    }
    SnapshotReader snapshot;
    for (std::uint32_t i = 0; i < count; ++i) {
        Section section;
        std::uint8_t name_size = 0;
        std::span<const std::byte> name;
        std::uint16_t flags = 0;
        std::uint32_t length = 0;
        std::uint64_t checksum = 0;
        std::span<const std::byte> body;
        if (!reader.get(name_size) || name_size > SnapshotLimits::kNameBytes ||
            !reader.get(name_size, name) || !reader.get(section.instance) || !reader.get(section.version) ||
            !reader.get(flags) || !reader.get(length) || !reader.get(checksum) ||
            length > SnapshotLimits::kSectionBytes || !reader.get(length, body)) {
            return fail(Code::corrupt, "snapshot: section {} is truncated or too long", i);
        }
        section.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
        if (XXH3_64bits(body.data(), body.size()) != checksum) {
            return fail(Code::corrupt, "snapshot: {}: checksum is wrong", where(section));
        }
        if ((flags & ~kIgnorable) != 0) {
            return fail(Code::corrupt, "snapshot: {}: unknown flags {:#x}", where(section), flags);
        }
        if (snapshot.has(section.name, section.instance)) {
            return fail(Code::corrupt, "snapshot: {} appears twice", where(section));
        }
        section.ignorable = (flags & kIgnorable) != 0;
        section.body.assign(body.begin(), body.end());
        snapshot.sections_.push_back(std::move(section));
    }
    if (reader.left() != 0) {
        return fail(Code::corrupt, "snapshot: {} bytes left over", reader.left());
    }
    return snapshot;
}

bool SnapshotReader::has(std::string_view name, std::uint32_t instance) const {
    return std::any_of(sections_.begin(), sections_.end(),
                       [&](const Section& s) { return s.name == name && s.instance == instance; });
}

Result<const SnapshotReader::Section*> SnapshotReader::find(const StateId& id, std::uint32_t instance) {
    for (Section& section : sections_) {
        if (section.name != id.name || section.instance != instance) {
            continue;
        }
        if (section.taken) {
            return fail(Code::corrupt, "snapshot: {} is asked for twice", where(section));
        }
        if (section.version > id.current) {
            return fail(Code::version, "snapshot: {} has version {}, newer than {} known here",
                        where(section), section.version, id.current);
        }
        if (section.version < id.oldest) {
            return fail(Code::version, "snapshot: {} has version {}, older than {} still read here",
                        where(section), section.version, id.oldest);
        }
        section.taken = true;
        return &section;
    }
    return fail(Code::corrupt, "snapshot: section {}[{}] is missing", id.name, instance);
}

std::string SnapshotReader::where(const Section& section) {
    return fmt::format("{}[{}]", section.name, section.instance);
}

Result<void> SnapshotReader::finish() const {
    for (const Section& section : sections_) {
        if (!section.taken && !section.ignorable) {
            return fail(Code::corrupt, "snapshot: section {} is not known here", where(section));
        }
    }
    return {};
}

}  // namespace vmm
