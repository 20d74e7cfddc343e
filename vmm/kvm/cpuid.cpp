#include "vmm/kvm/cpuid.hpp"

#include <charconv>

#include "vmm/base/check.hpp"

namespace vmm {

namespace {

Result<std::uint32_t> parse_number(std::string_view text, std::string_view what) {
    const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    const std::string_view digits = hexadecimal ? text.substr(2) : text;
    std::uint32_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, hexadecimal ? 16 : 10);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) {
        return fail(Code::invalid, "{}: '{}' is not a 32-bit number (decimal, or hexadecimal after 0x)", what,
                    text);
    }
    return value;
}

Result<CpuidRegister> parse_register(std::string_view text) {
    constexpr std::string_view kNames[] = {"eax", "ebx", "ecx", "edx"};
    for (std::uint8_t i = 0; i < std::size(kNames); ++i) {
        if (text == kNames[i]) {
            return static_cast<CpuidRegister>(i);
        }
    }
    return fail(Code::invalid, "'{}' is not one of eax, ebx, ecx, edx", text);
}

}  // namespace

const CpuidEntry* CpuidTable::find(std::uint32_t leaf, std::uint32_t subleaf) const {
    for (const CpuidEntry& entry : entries) {
        if (entry.leaf == leaf && entry.subleaf == subleaf) {
            return &entry;
        }
    }
    return nullptr;
}

CpuidEntry* CpuidTable::find(std::uint32_t leaf, std::uint32_t subleaf) {
    return const_cast<CpuidEntry*>(std::as_const(*this).find(leaf, subleaf));
}

std::uint32_t& register_of(CpuidEntry& entry, CpuidRegister which) {
    switch (which) {
        case CpuidRegister::eax:
            return entry.eax;
        case CpuidRegister::ebx:
            return entry.ebx;
        case CpuidRegister::ecx:
            return entry.ecx;
        case CpuidRegister::edx:
            return entry.edx;
    }
    VERIFY(false);
    return entry.eax;
}

std::uint32_t register_of(const CpuidEntry& entry, CpuidRegister which) {
    CpuidEntry copy = entry;
    return register_of(copy, which);
}

Result<CpuidMask> parse_cpuid_mask(std::string_view text) {
    const std::string what = fmt::format("CPUID mask '{}' (LEAF:REG=BITS, as in 0x7:ebx=0x10000)", text);
    const std::size_t colon = text.find(':');
    const std::size_t equals = text.find('=');
    if (colon == std::string_view::npos || equals == std::string_view::npos || equals < colon) {
        return fail(Code::invalid, "{}: ':' or '=' is missing", what);
    }
    std::string_view leaf = text.substr(0, colon);
    CpuidMask mask;
    if (const std::size_t dot = leaf.find('.'); dot != std::string_view::npos) {
        mask.subleaf = TRY(parse_number(leaf.substr(dot + 1), what));
        leaf = leaf.substr(0, dot);
    }
    mask.leaf = TRY(parse_number(leaf, what));
    mask.reg = TRY(parse_register(text.substr(colon + 1, equals - colon - 1)).context(what));
    mask.bits = TRY(parse_number(text.substr(equals + 1), what));
    return mask;
}

void apply(const CpuidMask& mask, CpuidTable& table) {
    if (CpuidEntry* entry = table.find(mask.leaf, mask.subleaf)) {
        register_of(*entry, mask.reg) &= ~mask.bits;
    }
}

}  // namespace vmm
