// Source: the side that gives the guest away. run() is the list of phases; PROTOCOL.md section 5 is its
// contract.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "migration/copier.hpp"
#include "migration/copy_control.hpp"
#include "migration/event.hpp"
#include "migration/ports.hpp"
#include "migration/record.hpp"

namespace migration {

struct SourceOptions {
    Limits limits;
    std::uint16_t streams = 1;                   // data connections
    std::optional<std::uint64_t> max_bandwidth;  // bytes/s, while the guest runs
    bool verify_full = false;
    std::optional<vmm::Duration> timeout;  // of everything before Commit
    std::optional<vmm::Duration>
        retry;  // how long to try to come back when the connection breaks before Commit
    vmm::Duration query_patience =
        std::chrono::seconds{10};  // how long run() asks before it reports `unknown`
};

struct SourceServices {
    SourceVm& vm;
    Connector& connector;
    RecordStore& records;
    const vmm::Clock& clock;
    EventSink& events;
    Uuid boot_id{};
};

// What a person decides when the destination cannot say who owns the guest.
enum class Resolution : std::uint8_t { resume, discard };

class Source {
  public:
    Source(SourceServices services, SourceOptions options);
    ~Source();
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;

    // The whole migration, once. Unless the outcome is `completed` or `unknown` the guest is where and as it
    // was.
    Outcome run();
    // After `unknown`: asks the destination until it knows, or until resolve(). The guest stays paused and
    // whole.
    Outcome settle();

    // Any thread. False: too late, `Commit` may be on its way.
    bool cancel();
    // Any thread, while the outcome is unknown; false otherwise.
    bool resolve(Resolution resolution);

    const std::string& session() const { return session_name_; }

  private:
    // The phases, in order.
    vmm::Result<void> connect();
    vmm::Result<void> negotiate();
    vmm::Result<void> preflight();
    vmm::Result<void> prepare();
    vmm::Result<void> copy();
    void learn_from(const Round& round);
    vmm::Result<bool> worth_the_pause();
    vmm::Result<vmm::Duration> flush_storage();
    vmm::Result<void> flush_once();
    vmm::Result<void> pause();
    vmm::Result<void> final();
    // Nothing: the destination runs the guest. An error inside: it never started it, and never will. An error
    // outside: unknown.
    vmm::Result<std::optional<vmm::Error>> commit();
    void done();

    vmm::Result<void> up_to_commit();
    vmm::Result<void> from_copy();
    // After a connection that broke: whether to come back; what the destination said last may be against it.
    bool may_retry(vmm::Error& why);
    // Comes back, and goes on with what the destination has kept.
    vmm::Result<void> retry(const vmm::Error& why);
    vmm::Result<void> come_back(vmm::TimePoint broken);
    vmm::Result<PageTable> read_held(const Deadline& deadline);
    void retire_streams();
    std::vector<MessageStream*> carriers() const;
    void enter(SourcePhase phase);
    void reached(Moment moment);

    // The one rollback: whatever broke before Commit, the guest goes on here.
    Outcome roll_back(vmm::Error error);
    // If it is paused.
    void resume_here();
    // A destination that gives up says why before it closes: that, or else `error`.
    vmm::Error last_word(vmm::Error error);
    vmm::Error mismatch_error(const DigestMismatch& mismatch);
    // Names the pages of a digest mismatch; the guest runs again by then.
    std::string name_mismatch();
    // The table that the destination shows next on control, in so many messages; false if it is not in order.
    vmm::Result<bool> read_inventories(std::uint32_t count, const Deadline& deadline, PageTable& into);
    Outcome finish(Outcome outcome, std::vector<Reason> reasons);
    // One Query over a new connection, for so long at most.
    QueryOutcome ask(vmm::Duration limit);
    std::optional<Outcome> act_on(QueryOutcome answer);
    std::optional<Outcome> act_on_resolution();
    // Reasons, where a person asked for `contrary` while the destination was being asked.
    std::vector<Reason> overtaken(Resolution contrary) const;

    vmm::Result<void> send_boot_image(const vmm::GatheredBytes& image);
    vmm::Result<void> open_streams();
    vmm::Result<Round> round(GuestState guest);
    vmm::Result<void> await_round_done(std::uint32_t round);
    vmm::Result<Message> next_answer(const Deadline& deadline);
    vmm::Duration link_time(const Round& round);
    vmm::Result<void> await_ready();
    vmm::Result<void> check() const;
    std::optional<vmm::Error> passed_limit() const;
    Deadline deadline() const;
    vmm::Duration until_deadline() const;
    std::uint64_t bytes_sent() const;
    MessageStream& adopt(std::unique_ptr<Transport> transport);
    Reason reason_for(const vmm::Error& error) const;

    SourceServices services_;
    const SourceOptions options_;
    const SessionId session_;
    const Secret secret_;
    const std::string session_name_;

    SourcePhase phase_ = SourcePhase::connect;
    vmm::TimePoint started_at_;
    std::optional<vmm::TimePoint> pause_ends_;  // --max-pause
    Manifest manifest_;
    FixedCosts costs_;
    vmm::Duration clock_difference_{};
    std::vector<Round> rounds_;
    std::vector<Reason> refusals_;
    std::unique_ptr<RecordHandle> record_;
    std::unique_ptr<CopyControl> copy_control_;
    std::unique_ptr<Copier> copier_;
    bool storage_flushed_ = false;
    int broken_pauses_ = 0;            // pauses that came to nothing because the connection broke
    std::uint64_t retired_bytes_ = 0;  // sent on connections that broke
    bool paused_ = false;
    std::optional<vmm::Error> not_resumed_;
    bool digest_verified_ = false;
    std::uint32_t inventories_ = 0;  // that follow a digest mismatch

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::unique_ptr<MessageStream>> streams_;  // [0] is control; the vector under mutex_
    enum class Gate : std::uint8_t { open, cancelled, committed, unknown, settled } gate_ = Gate::open;
    std::optional<Resolution> resolution_;
};

// `vmm preflight`: connects, shows the manifest, measures the link, leaves.
struct PreflightResult {
    PreflightReply reply;
    Manifest manifest;
    vmm::Duration round_trip{};
    vmm::Duration clock_difference{};  // destination minus source
    double link_bytes_per_s = 0;       // 0: refused, so it was not measured
};
vmm::Result<PreflightResult> run_preflight(SourceVm& vm, Connector& connector, const vmm::Clock& clock);

}  // namespace migration
