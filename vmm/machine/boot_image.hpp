// BootImage: what a loader puts into memory and how the first vCPU starts. It is kept for the life of the
// guest and moves with it, because a reset puts it back: there is no firmware that would load the kernel
// again.
#pragma once

#include <vector>

#include "vmm/guest/memory.hpp"
#include "vmm/kvm/entry.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

struct BootSegment {
    static constexpr std::size_t kMaxBytes = std::size_t{1} << 30;

    std::uint64_t gpa = 0;
    Bytes data;
    std::uint64_t zero_bytes = 0;  // zeroed after the data (ELF: p_memsz - p_filesz)

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("gpa", self.gpa);
        v.bytes("data", self.data, kMaxBytes);
        v.field("zero_bytes", self.zero_bytes);
    }
};

struct BootImage {
    static constexpr StateId id{"boot-image", 2, 1};
    static constexpr std::size_t kMaxSegments = 256;

    EntryMode mode = EntryMode::protected32;
    std::uint64_t entry = 0;
    std::uint64_t rax = 0;  // multiboot 1 section 3.2: the magic 0x2badb002
    std::uint64_t rbx = 0;  // PVH: address of hvm_start_info; multiboot: address of the information structure
    std::vector<BootSegment> segments;
    std::uint64_t rsi = 0;  // Linux: address of the zero page
    std::uint64_t cr3 = 0;  // of long64, as in EntryState
    std::uint64_t gdt = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.enumeration("mode", self.mode, EntryMode::long64);
        v.field("entry", self.entry);
        v.field("rax", self.rax);
        v.field("rbx", self.rbx);
        v.list("segments", self.segments, kMaxSegments);
        if (v.since(2)) {
            v.field("rsi", self.rsi);
            v.field("cr3", self.cr3);
            v.field("gdt", self.gdt);
        } else {
            v.check(self.mode != EntryMode::long64, "mode is not long64 before version 2");
        }
    }
};

// Writes every segment. Fails, naming the segment, when one is not RAM.
Result<void> place(const BootImage& image, GuestMemory& memory);

}  // namespace vmm
