#include "vmm/kvm/dirty_log.hpp"

#include <algorithm>

#include "vmm/base/check.hpp"

namespace vmm {

namespace {

constexpr std::size_t kWordBits = Bitmap::kWordBits;

}  // namespace

KvmDirtyLog::KvmDirtyLog(const KvmVm& vm, const GuestMemory& memory)
    : vm_(vm.fd()),
      manual_(vm.capabilities().manual_dirty_log),
      initially_set_(vm.capabilities().dirty_log_initially_set) {
    std::uint32_t number = 0;
    for (const MemoryRegion& region : memory.regions()) {
        Slot slot;
        slot.number = number++;
        slot.pages = region.pages();
        slot.host_address = reinterpret_cast<std::uintptr_t>(region.memory.bytes().data());
        slot.scratch.resize((slot.pages.count + kWordBits - 1) / kWordBits);
        slot.collected.resize(slot.scratch.size());
        slots_.push_back(std::move(slot));
    }
}

Result<void> KvmDirtyLog::set_logging(const Slot& slot, bool on) const {
    kvm_userspace_memory_region config{};
    config.slot = slot.number;
    config.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    config.guest_phys_addr = slot.pages.first << kPageShift;
    config.memory_size = slot.pages.count << kPageShift;
    config.userspace_addr = slot.host_address;
    TRY(vm_.call_with(KVM_REQUEST(KVM_SET_USER_MEMORY_REGION), config)
            .context(fmt::format("dirty log of slot {}", slot.number)));
    return {};
}

Result<void> KvmDirtyLog::start() {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        Slot& slot = slots_[i];
        if (auto on = set_logging(slot, true); !on) {
            while (i-- > 0) {
                (void)set_logging(slots_[i], false);
            }
            return on;
        }
        // INITIALLY_SET: nothing is write-protected yet, and every bit is set in KVM. They count as handed
        // out, so that the first rearm() of a page clears its bit, which is what protects it.
        std::fill(slot.collected.begin(), slot.collected.end(), initially_set_ ? ~std::uint64_t{0} : 0);
        if (initially_set_ && slot.pages.count % kWordBits != 0) {
            slot.collected.back() = (std::uint64_t{1} << (slot.pages.count % kWordBits)) - 1;
        }
    }
    return {};
}

Result<void> KvmDirtyLog::collect(Bitmap& dirty) {
    for (Slot& slot : slots_) {
        kvm_dirty_log log{};
        log.slot = slot.number;
        log.dirty_bitmap = slot.scratch.data();
        TRY(vm_.call_with(KVM_REQUEST(KVM_GET_DIRTY_LOG), log).context(fmt::format("slot {}", slot.number)));
        dirty.merge_words(slot.pages.first, slot.scratch);
        if (manual_) {
            for (std::size_t i = 0; i < slot.scratch.size(); ++i) {
                if (slot.scratch[i] != 0) {
                    slot.collected[i] |= slot.scratch[i];
                }
            }
        }
    }
    return {};
}

Result<void> KvmDirtyLog::rearm(PageRange range) {
    if (!manual_ || range.count == 0) {
        return {};
    }
    const auto slot = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& s) {
        return range.first >= s.pages.first && range.end() <= s.pages.end();
    });
    VERIFY(slot != slots_.end());
    const std::uint64_t first = range.first - slot->pages.first;
    VERIFY(first % kWordBits == 0);
    VERIFY(range.count % kWordBits == 0 || range.end() == slot->pages.end());

    const auto begin = slot->collected.begin() + static_cast<std::ptrdiff_t>(first / kWordBits);
    const auto end = begin + static_cast<std::ptrdiff_t>((range.count + kWordBits - 1) / kWordBits);
    std::vector<std::uint64_t> words(begin, end);
    if (std::all_of(words.begin(), words.end(), [](std::uint64_t word) { return word == 0; })) {
        return {};
    }
    kvm_clear_dirty_log log{};
    log.slot = slot->number;
    log.first_page = first;
    log.num_pages = static_cast<std::uint32_t>(range.count);
    log.dirty_bitmap = words.data();
    TRY(vm_.call_with(KVM_REQUEST(KVM_CLEAR_DIRTY_LOG), log)
            .context(fmt::format("slot {} pages {}+{}", slot->number, first, range.count)));
    std::fill(begin, end, 0);
    return {};
}

Result<void> KvmDirtyLog::stop() {
    Result<void> outcome;
    for (const Slot& slot : slots_) {
        if (auto off = set_logging(slot, false); !off && outcome) {
            outcome = std::move(off);
        }
    }
    return outcome;
}

}  // namespace vmm
