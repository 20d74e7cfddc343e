// Lifecycle: the one place that knows in which order a machine is paused, saved, restored, reset and resumed.
//
// Pause: all vCPUs, then devices. Save after that. Resume: devices, then vCPUs.
//
// Locking. Every operation below takes the *turn*, works, and gives it back; operations wait for one another
// in no particular order. The turn is a flag, not a lock: mutex_ guards the flag and the published state
// only, and is never held while vCPU threads are waited for or devices are called. A handover keeps the turn
// from begin_handover() to its end, so that pause, resume, stop and resets queue behind it. A thread of the
// lifecycle itself carries out what the guest asks for (reset, end) as soon as it gets the turn.
//
// All functions may be called by any thread but a vCPU's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "vmm/base/unique_fd.hpp"
#include "vmm/kvm/compatibility.hpp"
#include "vmm/machine/machine_state.hpp"

namespace vmm {

enum class RunState { created, running, paused, ended };

struct GuestEnd {
    enum class Reason { exit_port, power_off, crash, stopped, handed_over };

    Reason reason = Reason::stopped;
    std::uint8_t value = 0;  // written to the exit port
    std::string text;        // of a crash, one line with the registers
};

class Lifecycle {
  public:
    // Creates and parks the vCPU threads. The machine must outlive it; devices may still be added until it
    // starts.
    static Result<std::unique_ptr<Lifecycle>> create(Machine& machine);
    // Stops the vCPU threads, whatever the state. Nobody else is calling.
    ~Lifecycle();
    Lifecycle(const Lifecycle&) = delete;
    Lifecycle& operator=(const Lifecycle&) = delete;

    // Places the boot image and sets vCPU 0 to its entry; the first resume() starts the guest. Once, when
    // created.
    Result<void> boot();

    // For users; each does nothing when it is already so. Code::guest_ended when the guest has ended. A guest
    // whose devices do not come to rest within 30 s is not paused, and one that cannot have its disks is not
    // resumed.
    Result<void> pause();
    Result<void> resume();
    // Ends the guest from outside; nothing when it has ended.
    void stop();

    RunState state() const;
    // Where the guest ended, how.
    std::optional<GuestEnd> end() const;
    // Readable once the guest has ended; never read from it.
    int end_fd() const { return ended_.fd(); }
    GuestEnd wait_end();
    // How often the guest was reset.
    std::uint64_t resets() const;

    // What another host must offer. Stops the vCPUs for a moment (about 0.1 ms) if they run.
    Result<CpuNeeds> cpu_needs();
    // How long the vCPUs took then to leave the guest and to enter it again.
    Duration stop_time() const { return stop_time_; }

    // Handover, at the source. begin pauses the machine whatever the user wants; Code::guest_ended if the
    // guest ended at or before the pause, another code if its devices do not come to rest within `limit`: the
    // handover is then over. A reset asked for at the pause is kept and travels. Of devices that were at rest
    // already nothing is drained.
    Result<Drain> begin_handover(Duration limit);
    // The snapshot. Between begin and end; may be called again.
    Result<Bytes> save();
    // The guest stays here, with its disks, and goes on as the user wants it. Paused, when another has them.
    Result<void> cancel_handover();
    // The guest has gone: it never runs here again. Ends it as handed_over.
    void finish_handover();

    // Handover, at the destination: created, then restore(), then start(). `elapsed`: see restore_machine().
    Result<void> restore(std::span<const std::byte> snapshot, std::optional<Duration> elapsed = std::nullopt);
    struct Rehearsal {
        Duration save{};
        Duration restore{};
    };
    // Saves and restores the machine as created, twice: what the cheaper time cost here, and everything they
    // touch is warm.
    Result<Rehearsal> rehearse();
    // Goes on as the snapshot says. The time just before vCPU 0's first KVM_RUN, or nothing when the guest
    // arrives paused. After an error entered() tells whether the guest may have run: if not, the source may
    // resume.
    Result<std::optional<TimePoint>> start();

    // What the guest has to itself on the host (its disks), during a handover, while nothing runs: at the
    // source give, and take back; at the destination take, before start(), and give back when that fails.
    // Take takes all that can be had; an error names the first that cannot. Give gives nothing when what the
    // guest has written is not on the storage within `limit`.
    Result<void> give_exclusives(Duration limit);
    Result<void> take_exclusives();
    // What the guest has written so far goes to the storage, while it runs, so that give has little to do.
    // Without the turn. Waiting may end with Code::timeout, and goes on with the next call.
    Result<void> begin_flush();
    Result<void> wait_flushed(Duration limit);
    // Whether any vCPU ever ran: it is in KVM_RUN, or came back from it with anything but a failure.
    bool entered() const { return team_->ever_entered(); }

  private:
    // Holds the turn while it lives.
    class Turn;

    // How long devices may take to come to rest when nobody said otherwise.
    static constexpr Duration kDeviceLimit = std::chrono::seconds{30};

    Lifecycle(Machine& machine, WakeFd ended) : machine_(machine), ended_(std::move(ended)) {}

    void take_turn();
    void give_turn();
    void main();
    Result<void> refuse_if_ended() const;
    void publish(RunState state);
    void finish(GuestEnd end);

    // With the turn.
    Result<Drain> halt_machine(Duration limit);
    Result<Drain> pause_devices(Duration limit);
    Error go_on_after(Error error);
    Result<void> unpark();
    Result<std::optional<TimePoint>> run_if_wanted();
    Result<TimePoint> try_run();

    Machine& machine_;
    std::unique_ptr<VcpuTeam> team_;
    PristineState pristine_;
    RunFlags flags_;         // with the turn
    bool halted_ = true;     // with the turn: vCPUs are parked and devices paused
    bool handover_ = false;  // with the turn
    std::atomic<Duration> stop_time_ = Duration::zero();

    mutable std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    bool turn_taken_ = false;
    bool quit_ = false;
    RunState state_ = RunState::created;
    std::uint64_t resets_ = 0;
    std::optional<GuestEnd> end_;

    WakeFd ended_;
    std::thread thread_;
};

}  // namespace vmm
