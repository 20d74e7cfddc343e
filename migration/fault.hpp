// Faults on purpose: one fault that one side of a migration brings upon itself, at a step of a phase. For
// tools/faultlab, and for whoever wants to see what a handover does.
//
//     KIND@PHASE[:N][=ARG]      cut@commit   kill@final:2   delay@copy:3=500
//
// The N-th message that this side sends in that phase (1 unless given), counted over all its connections;
// `kill` and `stop` strike after the N-th message sent or record written, on entering the phase with N = 0
// (unless given).
#pragma once

#include <functional>
#include <mutex>

#include "migration/event.hpp"
#include "migration/faulty_transport.hpp"
#include "migration/record.hpp"

namespace migration {

struct FaultPlan {
    enum class Kind : std::uint8_t {
        cut,       // the connection ends before the message
        truncate,  // ... after ARG bytes of it (1)
        stall,     // half open: from the message on nothing passes on its connection, and this side does not
                   // learn it
        delay,     // ARG ms (500)
        corrupt,   // byte ARG (0), counted round
        duplicate,
        reorder,    // passes after the next one
        late,       // the connection is lost, and the message still arrives ARG ms later (1500)
        kill,       // SIGKILL for this process
        stop,       // SIGSTOP
        disk_full,  // records: from the N-th write on, ENOSPC
        read_only,  // ... EROFS
        clock,      // from the phase on the wall clock is ARG seconds ahead (3600)
    };
    Kind kind = Kind::cut;
    std::string phase;
    std::uint32_t step = 1;
    std::int64_t argument = 0;

    // An error says what is allowed.
    static vmm::Result<FaultPlan> parse(std::string_view text, Role side);
    std::string text() const;
};

// Carries out a plan: everything that goes through what it wraps. It must outlive all of that. Any thread.
class FaultInjector final : public EventSink, private FaultPoint, private vmm::Clock {
  public:
    // `struck` is told once, just before, what happens.
    FaultInjector(FaultPlan plan, EventSink& next, std::function<void(const std::string&)> struck);

    std::unique_ptr<Transport> wrap(std::unique_ptr<Transport> transport);
    // Both must outlive what is made of it.
    std::unique_ptr<Connector> wrap(Connector& connector);
    std::unique_ptr<RecordStore> wrap(RecordStore& records);
    const vmm::Clock& clock() const { return *this; }

    void on(const Event& event) override;

  private:
    class Records;
    class Handle;

    Strike strike(Direction direction, std::uint64_t before, std::size_t size) override;
    void sent() override;
    // A record is about to be written: the error to give instead.
    vmm::Result<void> record_write();
    // A message was sent or a record written.
    void stepped();
    void end_process_if(bool due);
    void tell();

    vmm::TimePoint now() const override { return vmm::real_clock().now(); }
    std::int64_t realtime_ns() const override;

    const FaultPlan plan_;
    EventSink& next_;
    const std::function<void(const std::string&)> struck_;

    mutable std::mutex mutex_;
    bool in_phase_ = false;
    bool told_ = false;
    std::uint32_t messages_ = 0;  // since the phase began
    std::uint32_t records_ = 0;
    bool records_fail_ = false;
    bool clock_jumped_ = false;
};

}  // namespace migration
