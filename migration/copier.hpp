// Copier: the rounds. Owns the debt (which pages must still be sent), the page table and one sender a stream.
#pragma once

#include <memory>
#include <vector>

#include "migration/page_sender.hpp"
#include "migration/worker_team.hpp"

namespace migration {

class Copier {
  public:
    // Streams: the data connections, or control alone. All must outlive the copier.
    static vmm::Result<std::unique_ptr<Copier>> create(vmm::GuestMemory& memory, vmm::DirtyTracker& tracker,
                                                       std::vector<MessageStream*> streams,
                                                       const Secret& secret, CopyMonitor& monitor,
                                                       const vmm::Clock& clock);
    // Disarms the tracker if it still is armed.
    ~Copier();

    // After a broken connection: the rounds go on over new streams, as many as before, to a destination that
    // holds `held`. Pages of which it holds something else than was last sent are owed again. How many it
    // holds as sent.
    vmm::Result<std::uint64_t> resume(std::vector<MessageStream*> streams, const PageTable& held);
    std::uint32_t next_round() const { return next_round_; }

    // Arms the tracker; from here on every page is owed.
    vmm::Result<void> start();
    // Adds what was written since to the debt.
    vmm::Result<void> collect();
    std::uint64_t owed_pages() const { return owed_.count(); }

    // One pass over the pages owed now, on all streams at once; the one with a paused guest is the last.
    // `idle` is called about once a second while worker 0 waits.
    vmm::Result<Round> round(GuestState guest, const Deadline& deadline, const std::function<void()>& idle);

    // Over what was sent so far.
    Digest digest() const;
    const PageTable& table() const { return table_; }
    // Paused: hashes all populated memory afresh. An error names the pages that differ from what was last
    // sent.
    vmm::Result<void> verify() const;
    // What hashing so many pages takes on this host, from a sample.
    vmm::Duration hashing_time(std::uint64_t pages) const;

  private:
    vmm::Result<void> stop();
    vmm::Result<std::vector<std::unique_ptr<PageSender>>> senders_for(
        const std::vector<MessageStream*>& streams);
    Copier(vmm::GuestMemory& memory, vmm::DirtyTracker& tracker, vmm::PopulationScan population,
           PageTable table, CopyMonitor& monitor, const vmm::Clock& clock);

    vmm::Result<void> verify_range(vmm::PageRange range, vmm::Bitmap& populated,
                                   std::vector<std::uint64_t>& missed) const;
    vmm::Result<void> send_share(std::size_t worker, const Pass& pass);

    vmm::GuestMemory& memory_;
    vmm::DirtyTracker& tracker_;
    vmm::PopulationScan population_;
    PageTable table_;
    CopyMonitor& monitor_;
    const vmm::Clock& clock_;
    vmm::Bitmap owed_;
    Digest digest_before_;  // of the table, when the present senders were made
    std::vector<std::unique_ptr<PageSender>> senders_;
    std::unique_ptr<WorkerTeam> team_;
    std::uint32_t next_round_ = 0;
    bool armed_ = false;
};

// RAM by chunk: calls f(chunk, range) for each part of a region that lies in one chunk, in order.
template <typename F>
void for_each_chunk(const vmm::GuestMemory& memory, F&& f) {
    for (const vmm::MemoryRegion& region : memory.regions()) {
        const vmm::PageRange pages = region.pages();
        for (std::uint64_t first = pages.first; first < pages.end();) {
            const std::uint64_t end = std::min(pages.end(), (chunk_of(first) + 1) * kChunkPages);
            f(chunk_of(first), vmm::PageRange{first, end - first});
            first = end;
        }
    }
}

// "page 17 (0x11000), page 18 (0x12000) and 3 more".
std::string name_pages(std::span<const std::uint64_t> pages);

}  // namespace migration
