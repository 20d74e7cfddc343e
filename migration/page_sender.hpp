// PageSender: one stream's share of a round. Looks at owed pages in the one order that loses nothing, and
// drops a page's debt only after it was sent and its hash recorded.
#pragma once

#include <memory>

#include "migration/message_stream.hpp"
#include "migration/page_table.hpp"
#include "migration/policy.hpp"
#include "vmm/base/bitmap.hpp"
#include "vmm/guest/dirty.hpp"
#include "vmm/guest/memory.hpp"
#include "vmm/guest/population.hpp"

namespace migration {

// What a sender asks of whoever runs the migration, between two frames.
class CopyMonitor {
  public:
    virtual ~CopyMonitor() = default;
    // Called by every worker after each frame of `bytes`, and with 0 at each chunk. May wait (a bandwidth
    // limit); an error ends the round.
    virtual vmm::Result<void> after_frame(std::size_t worker, std::size_t bytes) = 0;
};

enum class GuestState : std::uint8_t { running, paused };

// One round, as all its senders see it.
struct Pass {
    std::uint32_t round = 0;
    GuestState guest = GuestState::running;
    bool last = false;  // no page will follow
    Deadline deadline;
};

class PageSender {
  public:
    // All references must outlive the sender. `worker` is the number of this sender and of its stream.
    static vmm::Result<std::unique_ptr<PageSender>> create(std::size_t worker, MessageStream& stream,
                                                           const vmm::GuestMemory& memory,
                                                           const vmm::PopulationScan& population,
                                                           PageTable& table, CopyMonitor& monitor);

    // Sends the owed pages of `range`: RAM within one chunk that this worker owns. While the guest runs, the
    // range is rearmed before anybody looks. Round 0 sends pages from where they are: what the guest writes
    // between hash and send it has written since the rearm, so that round 1 owes the page, and sends it
    // whatever its hash. Later rounds copy each page before it is tested, hashed and sent, so that all three
    // see one version. While the guest is paused, pages are sent in place.
    vmm::Result<void> send(const Pass& pass, vmm::PageRange range, vmm::DirtyTracker& tracker,
                           vmm::Bitmap& owed);
    // Sends what is still queued, and the end mark of the round.
    vmm::Result<void> end_round(const Pass& pass, vmm::Bitmap& owed);

    // Sum over the pages of this worker's chunks.
    const Digest& digest_part() const { return part_; }
    // Counts since the last call; duration and number are the caller's.
    Round take_counts();

  private:
    PageSender(std::size_t worker, MessageStream& stream, const vmm::GuestMemory& memory,
               const vmm::PopulationScan& population, PageTable& table, CopyMonitor& monitor,
               vmm::Mapping staging);

    struct Pending {
        std::uint64_t page;
        Digest hash;
    };

    void look_at(std::uint64_t page, bool populated, GuestState guest, vmm::Bitmap& owed);
    void queue(std::uint64_t page, ExtentKind kind, const Digest& hash);
    bool full() const;
    vmm::Result<void> flush(const Pass& pass, vmm::Bitmap& owed);

    std::size_t worker_;
    MessageStream& stream_;
    const vmm::GuestMemory& memory_;
    const vmm::PopulationScan& population_;
    PageTable& table_;
    CopyMonitor& monitor_;

    vmm::Mapping staging_;  // copies of the queued data pages of a running guest, after round 0
    vmm::Bitmap populated_;
    Pages frame_;
    std::vector<Pending> pending_;
    std::vector<iovec> payload_;
    std::size_t data_pages_ = 0;  // queued
    Digest part_;
    Round counts_;
};

}  // namespace migration
