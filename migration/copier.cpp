#include "migration/copier.hpp"

#include <algorithm>
#include <optional>

#include "vmm/base/thread.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

Result<std::unique_ptr<Copier>> Copier::create(vmm::GuestMemory& memory, vmm::DirtyTracker& tracker,
                                               std::vector<MessageStream*> streams, const Secret& secret,
                                               CopyMonitor& monitor, const vmm::Clock& clock) {
    VERIFY(!streams.empty());
    vmm::PopulationScan population = TRY(vmm::PopulationScan::create());
    PageTable table = TRY(PageTable::create(memory.page_limit(), secret));
    std::unique_ptr<Copier> copier{
        new Copier(memory, tracker, std::move(population), std::move(table), monitor, clock)};
    copier->senders_ = TRY(copier->senders_for(streams));
    copier->team_ = TRY(WorkerTeam::create(streams.size()));
    return copier;
}

Result<std::vector<std::unique_ptr<PageSender>>> Copier::senders_for(
    const std::vector<MessageStream*>& streams) {
    std::vector<std::unique_ptr<PageSender>> senders;
    for (std::size_t worker = 0; worker < streams.size(); ++worker) {
        senders.push_back(
            TRY(PageSender::create(worker, *streams[worker], memory_, population_, table_, monitor_)));
    }
    return senders;
}

Result<std::uint64_t> Copier::resume(std::vector<MessageStream*> streams, const PageTable& held) {
    VERIFY(streams.size() == senders_.size() && held.size() == table_.size());
    // What a pause had collected and sent was not rearmed, and has been written again since: the rearm of the
    // next round would take the trace of that.
    TRY(collect());
    auto senders = TRY(senders_for(streams));
    Digest sum = digest();
    std::uint64_t kept = 0;
    for_each_chunk(memory_, [&](std::uint64_t, vmm::PageRange range) {
        for (std::uint64_t page = range.first; page < range.end(); ++page) {
            const Digest there = held.entry(page);
            if (!(table_.entry(page) == there)) {
                owed_.set(page);
                // Our entry is what a page is compared with before it is sent: it must be what is there.
                table_.set(page, there, sum);
            } else if (!(there == Digest{}) && !owed_.test(page)) {
                ++kept;
            }
        }
    });
    senders_ = std::move(senders);
    digest_before_ = sum;
    return kept;
}

Copier::Copier(vmm::GuestMemory& memory, vmm::DirtyTracker& tracker, vmm::PopulationScan population,
               PageTable table, CopyMonitor& monitor, const vmm::Clock& clock)
    : memory_(memory),
      tracker_(tracker),
      population_(std::move(population)),
      table_(std::move(table)),
      monitor_(monitor),
      clock_(clock),
      owed_(memory.page_limit()) {
}

Copier::~Copier() {
    (void)stop();
}

Result<void> Copier::start() {
    TRY(tracker_.start());
    armed_ = true;
    for (const vmm::MemoryRegion& region : memory_.regions()) {
        owed_.set_range(region.pages().first, region.pages().count);
    }
    return {};
}

Result<void> Copier::stop() {
    if (!std::exchange(armed_, false)) {
        return {};
    }
    return tracker_.stop();
}

Result<void> Copier::collect() {
    return tracker_.collect(owed_);
}

Result<Round> Copier::round(GuestState guest, const Deadline& deadline, const std::function<void()>& idle) {
    const Pass pass{next_round_++, guest, guest == GuestState::paused, deadline};
    const vmm::TimePoint start = clock_.now();
    std::vector<std::optional<vmm::Error>> errors(senders_.size());
    team_->run(
        [&](std::size_t worker) {
            if (auto sent = send_share(worker, pass); !sent) {
                errors[worker] = std::move(sent).error();
            }
        },
        idle);
    Round round;
    for (std::size_t worker = 0; worker < senders_.size(); ++worker) {
        const Round share = senders_[worker]->take_counts();
        round.data_pages += share.data_pages;
        round.zero_pages += share.zero_pages;
        round.unchanged_pages += share.unchanged_pages;
        round.bytes += share.bytes;
    }
    for (std::optional<vmm::Error>& error : errors) {
        if (error) {
            return vmm::Failure{std::move(*error)};
        }
    }
    round.number = pass.round;
    round.duration = clock_.now() - start;
    return round;
}

Result<void> Copier::send_share(std::size_t worker, const Pass& pass) {
    vmm::use_cpu_for(pass.guest == GuestState::running ? vmm::CpuUse::bulk : vmm::CpuUse::service);
    Result<void> outcome;
    for_each_chunk(memory_, [&](std::uint64_t chunk, vmm::PageRange range) {
        if (outcome && stream_of_chunk(chunk, static_cast<std::uint16_t>(senders_.size())) == worker) {
            outcome = senders_[worker]->send(pass, range, tracker_, owed_);
        }
    });
    TRY(std::move(outcome));
    return senders_[worker]->end_round(pass, owed_);
}

Digest Copier::digest() const {
    Digest sum = digest_before_;
    for (const auto& sender : senders_) {
        sum = add(sum, sender->digest_part());
    }
    return sum;
}

vmm::Duration Copier::hashing_time(std::uint64_t pages) const {
    const vmm::Bytes sample(64 * vmm::kPageSize, std::byte{1});
    // The least is what it costs; the rest was the scheduler's.
    vmm::Duration least = vmm::Duration::max();
    for (int attempt = 0; attempt < 8; ++attempt) {
        const vmm::TimePoint begin = clock_.now();
        for (std::size_t at = 0; at < sample.size(); at += vmm::kPageSize) {
            (void)table_.hasher().entry_for(std::span{sample}.subspan(at, vmm::kPageSize));
        }
        least = std::min(least, clock_.now() - begin);
    }
    return least * static_cast<std::int64_t>(pages) / 64;
}

Result<void> Copier::verify() const {
    std::vector<std::uint64_t> missed;
    vmm::Bitmap populated{memory_.page_limit()};
    Result<void> outcome;
    for_each_chunk(memory_, [&](std::uint64_t, vmm::PageRange range) {
        if (outcome) {
            outcome = verify_range(range, populated, missed);
        }
    });
    TRY(std::move(outcome));
    if (!missed.empty()) {
        return fail(Code::mismatch,
                    "--verify full: guest memory differs from what was sent: {}; no tracker saw it written",
                    name_pages(missed));
    }
    return {};
}

Result<void> Copier::verify_range(vmm::PageRange range, vmm::Bitmap& populated,
                                  std::vector<std::uint64_t>& missed) const {
    TRY(monitor_.after_frame(0, 0));
    TRY(population_.scan(memory_, range, populated));
    for (std::uint64_t page = range.first; page < range.end(); ++page) {
        Digest now;
        if (populated.test(page)) {
            const std::span<std::byte> bytes = *memory_.pages({page, 1});
            now = table_.hasher().entry_for(bytes);
        }
        if (!(now == table_.entry(page))) {
            missed.push_back(page);
        }
    }
    return {};
}

std::string name_pages(std::span<const std::uint64_t> pages) {
    constexpr std::size_t named = 8;
    std::string text;
    for (std::size_t i = 0; i < pages.size() && i < named; ++i) {
        text += fmt::format("{}page {} ({:#x})", i == 0 ? "" : ", ", pages[i], pages[i] << vmm::kPageShift);
    }
    if (pages.size() > named) {
        text += fmt::format(" and {} more", pages.size() - named);
    }
    return text;
}

}  // namespace migration
