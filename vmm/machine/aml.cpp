#include "vmm/machine/aml.hpp"

#include "vmm/base/check.hpp"

namespace vmm {

namespace {

// ACPI 6.4, 20.3.
enum Opcode : std::uint8_t {
    kZero = 0x00,
    kOne = 0x01,
    kName = 0x08,
    kBytePrefix = 0x0a,
    kWordPrefix = 0x0b,
    kDWordPrefix = 0x0c,
    kStringPrefix = 0x0d,
    kQWordPrefix = 0x0e,
    kScope = 0x10,
    kBuffer = 0x11,
    kPackage = 0x12,
    kExtended = 0x5b,
    kDevice = 0x82,  // after kExtended
};

// ACPI 6.4, 6.4.2 and 6.4.3; a small descriptor has its length in the tag.
constexpr std::uint8_t kIoPort = 0x47;
constexpr std::uint8_t kEndTag = 0x79;
constexpr std::uint8_t kMemory32Fixed = 0x86;
constexpr std::uint8_t kExtendedInterrupt = 0x89;
constexpr std::uint8_t kWritable = 1U << 0;
constexpr std::uint8_t kDecode16 = 1U << 0;
// Active low and shared are the other bits, clear.
constexpr std::uint8_t kConsumer = 1U << 0;
constexpr std::uint8_t kEdge = 1U << 1;

constexpr std::size_t kSegment = 4;

void put_byte(Bytes& bytes, std::uint8_t value) {
    bytes.push_back(std::byte{value});
}

}  // namespace

void AmlWriter::scope(std::string_view name, const AmlWriter& terms) {
    AmlWriter content;
    content.name_string(name);
    ByteWriter{content.bytes_}.put(terms.bytes_);
    put_byte(bytes_, kScope);
    package(content.bytes_);
}

void AmlWriter::device(std::string_view name, const AmlWriter& terms) {
    AmlWriter content;
    content.name_string(name);
    ByteWriter{content.bytes_}.put(terms.bytes_);
    put_byte(bytes_, kExtended);
    put_byte(bytes_, kDevice);
    package(content.bytes_);
}

void AmlWriter::name(std::string_view name, std::uint64_t value) {
    put_byte(bytes_, kName);
    name_string(name);
    integer(value);
}

void AmlWriter::name(std::string_view name, std::string_view value) {
    put_byte(bytes_, kName);
    name_string(name);
    put_byte(bytes_, kStringPrefix);
    ByteWriter{bytes_}.put(std::as_bytes(std::span{value}));
    put_byte(bytes_, 0);
}

void AmlWriter::name_package(std::string_view name, std::initializer_list<std::uint64_t> values) {
    AmlWriter content;
    put_byte(content.bytes_, static_cast<std::uint8_t>(values.size()));
    for (const std::uint64_t value : values) {
        content.integer(value);
    }
    put_byte(bytes_, kName);
    name_string(name);
    put_byte(bytes_, kPackage);
    package(content.bytes_);
}

void AmlWriter::name_resources(std::string_view name, const AmlResources& resources) {
    Bytes list = resources.bytes();
    put_byte(list, kEndTag);
    put_byte(list, 0);  // a checksum of zero counts as right
    AmlWriter content;
    content.integer(list.size());
    ByteWriter{content.bytes_}.put(list);
    put_byte(bytes_, kName);
    name_string(name);
    put_byte(bytes_, kBuffer);
    package(content.bytes_);
}

void AmlWriter::name_string(std::string_view name) {
    VERIFY(name.size() == (name.starts_with('\\') ? kSegment + 1 : kSegment));
    ByteWriter{bytes_}.put(std::as_bytes(std::span{name}));
}

void AmlWriter::integer(std::uint64_t value) {
    ByteWriter out{bytes_};
    if (value <= 1) {
        out.put(static_cast<std::uint8_t>(value == 0 ? kZero : kOne));
    } else if (value <= UINT8_MAX) {
        out.put(static_cast<std::uint8_t>(kBytePrefix));
        out.put(static_cast<std::uint8_t>(value));
    } else if (value <= UINT16_MAX) {
        out.put(static_cast<std::uint8_t>(kWordPrefix));
        out.put(static_cast<std::uint16_t>(value));
    } else if (value <= UINT32_MAX) {
        out.put(static_cast<std::uint8_t>(kDWordPrefix));
        out.put(static_cast<std::uint32_t>(value));
    } else {
        out.put(static_cast<std::uint8_t>(kQWordPrefix));
        out.put(value);
    }
}

// ACPI 6.4, 20.2.4: up to 63 in one byte; else the number of further bytes in the two high bits, the lowest
// four bits of the length, and the rest of it in those bytes.
void AmlWriter::package(const Bytes& content) {
    constexpr std::size_t kOneByteMost = 0x3f;
    constexpr std::size_t kMost = (std::size_t{1} << 28) - 1;
    std::size_t further = 0;
    while (content.size() + 1 + further >
           (further == 0 ? kOneByteMost : (std::size_t{1} << (4 + 8 * further)) - 1)) {
        ++further;
    }
    std::size_t length = content.size() + 1 + further;
    VERIFY(length <= kMost);
    if (further == 0) {
        put_byte(bytes_, static_cast<std::uint8_t>(length));
    } else {
        put_byte(bytes_, static_cast<std::uint8_t>(further << 6 | (length & 0xf)));
        length >>= 4;
        for (std::size_t i = 0; i < further; ++i, length >>= 8) {
            put_byte(bytes_, static_cast<std::uint8_t>(length));
        }
    }
    ByteWriter{bytes_}.put(content);
}

void AmlResources::memory32_fixed(std::uint32_t base, std::uint32_t size) {
    ByteWriter out{bytes_};
    out.put(kMemory32Fixed);
    out.put(std::uint16_t{9});  // bytes that follow
    out.put(kWritable);
    out.put(base);
    out.put(size);
}

void AmlResources::io(std::uint16_t base, std::uint8_t count) {
    ByteWriter out{bytes_};
    out.put(kIoPort);
    out.put(kDecode16);
    out.put(base);             // lowest
    out.put(base);             // highest base
    out.put(std::uint8_t{1});  // alignment
    out.put(count);
}

void AmlResources::interrupt(std::uint32_t gsi, Trigger trigger) {
    ByteWriter out{bytes_};
    out.put(kExtendedInterrupt);
    out.put(std::uint16_t{6});  // bytes that follow
    out.put(static_cast<std::uint8_t>(kConsumer | (trigger == Trigger::edge ? kEdge : 0)));
    out.put(std::uint8_t{1});  // one interrupt
    out.put(gsi);
}

}  // namespace vmm
