#include "vmm/machine/elf.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "vmm/base/bytes.hpp"
#include "vmm/base/check.hpp"

namespace vmm {

namespace {

constexpr std::array<std::byte, 4> kElfMagic{std::byte{0x7f}, std::byte{'E'}, std::byte{'L'}, std::byte{'F'}};
constexpr std::size_t kIdentBytes = 16;
constexpr std::size_t kClassAt = 4;
constexpr std::size_t kOrderAt = 5;
constexpr std::byte kClass32{1};
constexpr std::byte kClass64{2};
constexpr std::byte kLittleEndian{1};
constexpr std::uint16_t kExecutable = 2;
constexpr std::uint16_t kMachine386 = 3;
constexpr std::uint16_t kMachineX86_64 = 62;
constexpr std::uint32_t kLoad = 1;
constexpr std::uint32_t kNote = 4;
constexpr std::uint16_t kMaxHeaders = 128;
constexpr std::uint32_t kPhys32Entry = 18;
constexpr std::string_view kXen{"Xen\0", 4};

// Fields of the file's class one after another; past the end they read as zero and `ok` turns false.
class Fields {
  public:
    Fields(std::span<const std::byte> in, bool wide) : reader_(in), wide_(wide) {}

    template <std::unsigned_integral T>
    T take() {
        T value = 0;
        ok_ = reader_.get(value) && ok_;
        return value;
    }
    // An address, offset or size: 64 bits in ELF64, 32 in ELF32.
    std::uint64_t word() { return wide_ ? take<std::uint64_t>() : take<std::uint32_t>(); }
    bool ok() const { return ok_; }

  private:
    ByteReader reader_;
    bool wide_;
    bool ok_ = true;
};

struct Header {
    std::uint16_t type = 0;
    std::uint16_t machine = 0;
    std::uint64_t entry = 0;
    std::uint64_t table = 0;
    std::uint16_t entry_size = 0;
    std::uint16_t count = 0;
};

struct ProgramHeader {
    std::uint32_t type = 0;
    std::uint64_t offset = 0;
    std::uint64_t virtual_address = 0;
    std::uint64_t address = 0;
    std::uint64_t file_size = 0;
    std::uint64_t memory_size = 0;
    std::uint64_t alignment = 0;
};

Result<Header> parse_header(std::span<const std::byte> file, bool wide) {
    Fields fields{file.subspan(kIdentBytes), wide};
    Header header;
    header.type = fields.take<std::uint16_t>();
    header.machine = fields.take<std::uint16_t>();
    fields.take<std::uint32_t>();  // e_version
    header.entry = fields.word();
    header.table = fields.word();
    fields.word();                 // e_shoff
    fields.take<std::uint32_t>();  // e_flags
    fields.take<std::uint16_t>();  // e_ehsize
    header.entry_size = fields.take<std::uint16_t>();
    header.count = fields.take<std::uint16_t>();
    if (!fields.ok()) {
        return fail(Code::invalid, "ELF header: the file ends inside it; the image is truncated");
    }
    return header;
}

ProgramHeader parse_program_header(std::span<const std::byte> in, bool wide) {
    Fields fields{in, wide};
    ProgramHeader header;
    header.type = fields.take<std::uint32_t>();
    if (wide) {
        fields.take<std::uint32_t>();  // p_flags
    }
    header.offset = fields.word();
    header.virtual_address = fields.word();
    header.address = fields.word();
    header.file_size = fields.word();
    header.memory_size = fields.word();
    if (!wide) {
        fields.take<std::uint32_t>();  // p_flags
    }
    header.alignment = fields.word();
    VERIFY(fields.ok());
    return header;
}

// The part of a note that `size` bytes take, padded to the alignment of notes. Nothing when they are not
// there.
bool take_padded(ByteReader& reader, std::size_t size, std::size_t alignment,
                 std::span<const std::byte>& bytes) {
    if (!reader.get(size, bytes)) {
        return false;
    }
    // The last note of a segment may go without its padding.
    const std::size_t padding = std::min((alignment - size % alignment) % alignment, reader.left());
    std::span<const std::byte> ignored;
    return reader.get(padding, ignored);
}

// Looks for the PVH entry in one PT_NOTE.
Result<void> parse_notes(std::span<const std::byte> notes, std::size_t alignment, std::size_t index,
                         ElfFile& elf) {
    ByteReader reader{notes};
    while (reader.left() != 0) {
        std::uint32_t name_size = 0;
        std::uint32_t value_size = 0;
        std::uint32_t type = 0;
        std::span<const std::byte> name;
        std::span<const std::byte> value;
        if (!reader.get(name_size) || !reader.get(value_size) || !reader.get(type) ||
            !take_padded(reader, name_size, alignment, name) ||
            !take_padded(reader, value_size, alignment, value)) {
            return fail(Code::invalid, "ELF program header {}: a note is truncated; rebuild the image",
                        index);
        }
        if (type != kPhys32Entry || name.size() != kXen.size() ||
            std::memcmp(name.data(), kXen.data(), kXen.size()) != 0) {
            continue;
        }
        if (value.size() == sizeof(std::uint32_t)) {
            elf.pvh_entry = load_le<std::uint32_t>(value.data());
        } else if (value.size() == sizeof(std::uint64_t)) {
            elf.pvh_entry = load_le<std::uint64_t>(value.data());
        } else {
            return fail(Code::invalid,
                        "ELF program header {}: the PVH entry note has {} bytes instead of 4 or 8", index,
                        value.size());
        }
    }
    return {};
}

}  // namespace

bool is_elf(std::span<const std::byte> file) {
    return file.size() >= kElfMagic.size() &&
           std::memcmp(file.data(), kElfMagic.data(), kElfMagic.size()) == 0;
}

Result<ElfFile> parse_elf(std::span<const std::byte> file) {
    if (!is_elf(file) || file.size() < kIdentBytes) {
        return fail(Code::invalid, "ELF header: the file ends inside it; the image is truncated");
    }
    ElfFile elf;
    elf.is_64 = file[kClassAt] == kClass64;
    if ((!elf.is_64 && file[kClassAt] != kClass32) || file[kOrderAt] != kLittleEndian) {
        return fail(Code::invalid, "ELF header: not a little-endian 32- or 64-bit file; build it for x86");
    }
    const Header header = TRY(parse_header(file, elf.is_64));
    if (header.type != kExecutable) {
        return fail(Code::invalid,
                    "ELF header: type {} is not an executable (2); link the image at fixed addresses",
                    header.type);
    }
    if (header.machine != (elf.is_64 ? kMachineX86_64 : kMachine386)) {
        return fail(Code::invalid, "ELF header: machine {} is not x86; build the image for x86",
                    header.machine);
    }
    const std::size_t entry_size = elf.is_64 ? 56 : 32;
    if (header.count == 0 || header.count > kMaxHeaders || header.entry_size != entry_size) {
        return fail(Code::invalid, "ELF header: {} program headers of {} bytes; there must be 1 to {} of {}",
                    header.count, header.entry_size, kMaxHeaders, entry_size);
    }
    if (header.table > file.size() || file.size() - header.table < header.count * entry_size) {
        return fail(Code::invalid,
                    "ELF program headers: at {:#x}, outside the file of {} bytes; it is truncated",
                    header.table, file.size());
    }
    elf.entry = header.entry;
    std::uint64_t loaded = 0;
    for (std::size_t i = 0; i < header.count; ++i) {
        const ProgramHeader program =
            parse_program_header(file.subspan(header.table + i * entry_size, entry_size), elf.is_64);
        if (program.type != kLoad && program.type != kNote) {
            continue;
        }
        if (program.offset > file.size() || program.file_size > file.size() - program.offset) {
            return fail(
                Code::invalid,
                "ELF program header {}: {} bytes at {:#x} are outside the file of {} bytes; it is truncated",
                i, program.file_size, program.offset, file.size());
        }
        const std::span<const std::byte> data = file.subspan(program.offset, program.file_size);
        if (program.type == kNote) {
            TRY(parse_notes(data, program.alignment == 8 ? 8 : 4, i, elf));
            continue;
        }
        if (program.file_size > program.memory_size) {
            return fail(Code::invalid,
                        "ELF program header {}: {} bytes of the file do not fit {} bytes of memory", i,
                        program.file_size, program.memory_size);
        }
        loaded += program.file_size;
        if (loaded > file.size()) {
            return fail(Code::invalid,
                        "ELF program header {}: segments share bytes of the file; rebuild the image", i);
        }
        if (program.memory_size != 0) {
            elf.segments.push_back({program.virtual_address, program.address, program.memory_size, data});
        }
    }
    if (elf.segments.empty()) {
        return fail(Code::invalid, "ELF program headers: nothing to load; link the image as an executable");
    }
    return elf;
}

}  // namespace vmm
