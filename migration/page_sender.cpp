#include "migration/page_sender.hpp"

#include <cstring>

#include "vmm/base/thread.hpp"

namespace migration {

using vmm::Bitmap;
using vmm::kPageSize;
using vmm::PageRange;
using vmm::Result;

Result<std::unique_ptr<PageSender>> PageSender::create(std::size_t worker, MessageStream& stream,
                                                       const vmm::GuestMemory& memory,
                                                       const vmm::PopulationScan& population,
                                                       PageTable& table, CopyMonitor& monitor) {
    vmm::Mapping staging = TRY(vmm::Mapping::anonymous(Pages::kMaxDataPages * kPageSize, vmm::Backing::small)
                                   .context("staging buffer"));
    return std::unique_ptr<PageSender>{
        new PageSender{worker, stream, memory, population, table, monitor, std::move(staging)}};
}

PageSender::PageSender(std::size_t worker, MessageStream& stream, const vmm::GuestMemory& memory,
                       const vmm::PopulationScan& population, PageTable& table, CopyMonitor& monitor,
                       vmm::Mapping staging)
    : worker_(worker),
      stream_(stream),
      memory_(memory),
      population_(population),
      table_(table),
      monitor_(monitor),
      staging_(std::move(staging)),
      populated_(memory.page_limit()) {
}

Result<void> PageSender::send(const Pass& pass, PageRange range, vmm::DirtyTracker& tracker, Bitmap& owed) {
    frame_.round = pass.round;
    if (pass.guest == GuestState::running) {
        // Before the population is asked and before anything is read: a page first touched in between would
        // be lost. Ranges without an owed page are rearmed too, or what was skipped would stay dirty for
        // ever.
        TRY(tracker.rearm(range));
    }
    const bool any = owed.any_in_range(range.first, range.count);
    if (!any && pass.guest == GuestState::paused) {
        return {};  // at once: the guest waits for the pass
    }
    // Pages that need not be sent make no frame: the migration is asked here too whether to go on.
    TRY(monitor_.after_frame(worker_, 0));
    if (!any) {
        return {};
    }
    // In the pause few pages are owed, and to read one that has no memory costs less than to look for it.
    const bool sparse = pass.guest == GuestState::running;
    if (sparse) {
        populated_.clear_range(range.first, range.count);
        TRY(population_.scan(memory_, range, populated_));
    }
    for (auto run = owed.next_run(range.first, range.end()); run.count != 0;
         run = owed.next_run(run.first + run.count, range.end())) {
        for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
            look_at(page, !sparse || populated_.test(page), pass.guest, owed);
            if (full()) {
                TRY(flush(pass, owed));
            }
        }
    }
    return {};
}

void PageSender::look_at(std::uint64_t page, bool populated, GuestState guest, Bitmap& owed) {
    const Digest known = table_.entry(page);
    if (!populated) {
        // Reads as zero, without being read. Never sent, or sent as zero: the destination has it already.
        if (known == Digest{}) {
            owed.clear(page);
        } else {
            queue(page, ExtentKind::zero, {});
        }
        return;
    }
    std::span<std::byte> bytes = *memory_.pages({page, 1});
    // Round 0 has most of the pages, of which few are written meanwhile: it sends them from where they are.
    // The later rounds send a copy, so that what was sent is what was hashed.
    if (guest == GuestState::running && frame_.round != 0) {
        const std::span<std::byte> copy = staging_.bytes().subspan(data_pages_ * kPageSize, kPageSize);
        std::memcpy(copy.data(), bytes.data(), kPageSize);
        bytes = copy;
    }
    const Digest hash = table_.hasher().entry_for(bytes);
    // Written since round 0, perhaps between hash and send: what the destination holds then is neither.
    const bool doubtful = frame_.round == 1 && !(known == Digest{});
    if (hash == known && !doubtful) {
        // In round 0 nothing was sent before that could be unchanged: this page is zero.
        ++(frame_.round == 0 ? counts_.zero_pages : counts_.unchanged_pages);
        owed.clear(page);
        return;
    }
    if (hash == Digest{}) {
        queue(page, ExtentKind::zero, hash);
        return;
    }
    queue(page, ExtentKind::data, hash);
    const iovec part = part_of(bytes);
    if (!payload_.empty() &&
        static_cast<std::byte*>(payload_.back().iov_base) + payload_.back().iov_len == bytes.data()) {
        payload_.back().iov_len += part.iov_len;
    } else {
        payload_.push_back(part);
    }
    ++data_pages_;
}

void PageSender::queue(std::uint64_t page, ExtentKind kind, const Digest& hash) {
    pending_.push_back({page, hash});
    if (!frame_.extents.empty()) {
        Extent& back = frame_.extents.back();
        // An extent never crosses into another chunk: chunks have owners.
        if (back.kind == kind && back.first + back.count == page && page % kChunkPages != 0) {
            ++back.count;
            return;
        }
    }
    frame_.extents.push_back({kind, page, 1});
}

bool PageSender::full() const {
    return data_pages_ == Pages::kMaxDataPages || frame_.extents.size() == Pages::kMaxExtents;
}

Result<void> PageSender::flush(const Pass& pass, Bitmap& owed) {
    if (pending_.empty()) {
        return {};
    }
    const std::uint64_t before = stream_.bytes_sent();
    TRY(stream_.send(frame_, payload_, pass.deadline));
    for (const Pending& sent : pending_) {
        table_.set(sent.page, sent.hash, part_);
        owed.clear(sent.page);
    }
    const std::uint64_t bytes = stream_.bytes_sent() - before;
    counts_.bytes += bytes;
    counts_.data_pages += data_pages_;
    counts_.zero_pages += pending_.size() - data_pages_;
    if (data_pages_ == Pages::kMaxDataPages) {
        vmm::yield_cpu();  // a short frame ends its pass soon anyway
    }
    frame_.extents.clear();
    pending_.clear();
    payload_.clear();
    data_pages_ = 0;
    return monitor_.after_frame(worker_, bytes);
}

Result<void> PageSender::end_round(const Pass& pass, Bitmap& owed) {
    TRY(flush(pass, owed));
    return stream_.send(RoundEnd{pass.round, pass.last}, pass.deadline);
}

Round PageSender::take_counts() {
    return std::exchange(counts_, {});
}

}  // namespace migration
