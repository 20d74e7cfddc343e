#include "vmm/guest/dirty.hpp"

namespace vmm {

DeviceWriteTracker::DeviceWriteTracker(std::uint64_t pages)
    : pages_(pages), words_((pages + Bitmap::kWordBits - 1) / Bitmap::kWordBits) {
}

void DeviceWriteTracker::mark(PageRange range) {
    VERIFY(range.first <= pages_ && range.count <= pages_ - range.first);
    // Also while nobody collects. A flag that skips this would be read before the write above it is visible
    // to other CPUs (a store may pass a later load), and start() could then miss both the write and its mark.
    for (std::uint64_t page = range.first; page < range.end(); ++page) {
        words_[page / Bitmap::kWordBits].fetch_or(std::uint64_t{1} << (page % Bitmap::kWordBits),
                                                  std::memory_order_release);
    }
}

Result<void> DeviceWriteTracker::start() {
    // Acquire: whoever starts sees the writes whose marks it drops.
    for (auto& word : words_) {
        word.exchange(0, std::memory_order_acquire);
    }
    return {};
}

Result<void> DeviceWriteTracker::collect(Bitmap& dirty) {
    VERIFY(dirty.size() == pages_);
    for (std::size_t i = 0; i < words_.size(); ++i) {
        if (words_[i].load(std::memory_order_relaxed) != 0) {
            const std::uint64_t word = words_[i].exchange(0, std::memory_order_acquire);
            dirty.merge_words(i * Bitmap::kWordBits, {&word, 1});
        }
    }
    return {};
}

Result<void> UnionTracker::start() {
    for (std::size_t i = 0; i < members_.size(); ++i) {
        if (auto started = members_[i]->start(); !started) {
            while (i-- > 0) {
                (void)members_[i]->stop();
            }
            return started;
        }
    }
    return {};
}

Result<void> UnionTracker::collect(Bitmap& dirty) {
    for (DirtyTracker* member : members_) {
        TRY(member->collect(dirty));
    }
    return {};
}

Result<void> UnionTracker::rearm(PageRange range) {
    for (DirtyTracker* member : members_) {
        TRY(member->rearm(range));
    }
    return {};
}

Result<void> UnionTracker::stop() {
    Result<void> outcome;
    for (DirtyTracker* member : members_) {
        if (auto stopped = member->stop(); !stopped && outcome) {
            outcome = std::move(stopped);
        }
    }
    return outcome;
}

}  // namespace vmm
