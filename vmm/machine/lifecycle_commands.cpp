// What users and a migration ask of a Lifecycle. Each takes the turn; lifecycle.cpp does the work.
#include <algorithm>

#include "vmm/base/check.hpp"
#include "vmm/machine/lifecycle.hpp"

namespace vmm {

// Between a restore and the start at a destination: some hops on a good network. Beyond, CPU time would be
// wasted.
constexpr Duration kExpectStart = std::chrono::milliseconds{2};

class Lifecycle::Turn {
  public:
    explicit Turn(Lifecycle& owner) : owner_(owner) { owner_.take_turn(); }
    ~Turn() {
        if (!kept_) {
            owner_.give_turn();
        }
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    // A handover has begun: its end gives the turn back.
    void keep() { kept_ = true; }

  private:
    Lifecycle& owner_;
    bool kept_ = false;
};

Result<void> Lifecycle::boot() {
    const Turn turn{*this};
    VERIFY(state() == RunState::created);
    return place_boot_image(machine_);
}

Result<void> Lifecycle::pause() {
    const Turn turn{*this};
    TRY(refuse_if_ended());
    TRY(halt_machine(kDeviceLimit));
    flags_.running = false;
    publish(RunState::paused);
    return {};
}

Result<void> Lifecycle::resume() {
    const Turn turn{*this};
    TRY(refuse_if_ended());
    flags_.running = true;
    TRY(run_if_wanted());
    return {};
}

void Lifecycle::stop() {
    const Turn turn{*this};
    if (!end() && !halt_machine(kDeviceLimit) && !end()) {
        team_->park();  // devices that do not come to rest have let it go on
    }
    if (!end()) {
        finish({GuestEnd::Reason::stopped, 0, {}});
    }
}

Result<CpuNeeds> Lifecycle::cpu_needs() {
    const Turn turn{*this};
    TRY(refuse_if_ended());
    // The registers are the vCPUs' own: devices need not come to rest.
    const bool ran = !halted_;
    const TimePoint begin = real_clock().now();
    if (ran) {
        team_->park();
    }
    const TimePoint parked = real_clock().now();
    std::vector<std::vector<std::uint32_t>> found(machine_.vcpus().size());
    auto read = team_->for_each([&](Vcpu& vcpu) -> Result<void> {
        found[vcpu.index()] = nonzero_msrs(TRY(get_msrs(vcpu.fd(), vcpu.msrs())));
        return {};
    });
    const TimePoint read_at = real_clock().now();
    if (ran) {
        TRY(unpark());
    }
    stop_time_ = parked - begin + (real_clock().now() - read_at);
    TRY(std::move(read));

    CpuNeeds needs;
    const Capabilities& capabilities = machine_.vm().capabilities();
    needs.cpuid = machine_.config().cpuid;
    needs.vcpus = machine_.config().vcpus;
    needs.tsc_khz = machine_.config().tsc_khz;
    needs.sregs2 = capabilities.sregs2;
    needs.exception_payload = capabilities.exception_payload;
    needs.triple_fault_event = capabilities.triple_fault_event;
    for (const auto& msrs : found) {
        needs.msrs.insert(needs.msrs.end(), msrs.begin(), msrs.end());
    }
    std::sort(needs.msrs.begin(), needs.msrs.end());
    needs.msrs.erase(std::unique(needs.msrs.begin(), needs.msrs.end()), needs.msrs.end());
    return needs;
}

Result<Drain> Lifecycle::begin_handover(Duration limit) {
    Turn turn{*this};
    TRY(refuse_if_ended());
    const Drain drain = TRY(halt_machine(limit));
    handover_ = true;
    turn.keep();
    return drain;
}

Result<Bytes> Lifecycle::save() {
    VERIFY(handover_);
    return save_machine(machine_, *team_, flags_);
}

Result<void> Lifecycle::begin_flush() {
    for (Exclusive* exclusive : machine_.exclusives()) {
        TRY(exclusive->begin_flush());
    }
    return {};
}

Result<void> Lifecycle::wait_flushed(Duration limit) {
    const TimePoint end = real_clock().now() + limit;
    for (Exclusive* exclusive : machine_.exclusives()) {
        TRY(exclusive->wait_flushed(std::max(end - real_clock().now(), Duration::zero())));
    }
    return {};
}

Result<void> Lifecycle::give_exclusives(Duration limit) {
    if (!halted_) {
        return fail(Code::timeout, "a device is not at rest");  // it may be writing
    }
    TRY(begin_flush());
    TRY(wait_flushed(limit));
    for (Exclusive* exclusive : machine_.exclusives()) {
        TRY(exclusive->give());
    }
    return {};
}

Result<void> Lifecycle::take_exclusives() {
    Result<void> taken;
    for (Exclusive* exclusive : machine_.exclusives()) {
        if (auto one = exclusive->take(); !one && taken) {
            taken = std::move(one);
        }
    }
    return taken;
}

Result<void> Lifecycle::cancel_handover() {
    VERIFY(handover_);
    handover_ = false;
    Result<void> result;
    if (!flags_.running) {
        result = take_exclusives();  // while it stays paused too, nobody else may change its disks
    } else if (auto entered = run_if_wanted(); !entered) {
        result = Failure{std::move(entered).error()};
    }
    give_turn();
    return result;
}

void Lifecycle::finish_handover() {
    VERIFY(handover_);
    handover_ = false;
    finish({GuestEnd::Reason::handed_over, 0, {}});
    give_turn();
}

Result<void> Lifecycle::restore(std::span<const std::byte> snapshot, std::optional<Duration> elapsed) {
    const Turn turn{*this};
    VERIFY(state() == RunState::created);
    team_->stay_awake(kExpectStart);
    flags_ = TRY(restore_machine(machine_, *team_, snapshot, elapsed));
    return {};
}

Result<Lifecycle::Rehearsal> Lifecycle::rehearse() {
    const Turn turn{*this};
    VERIFY(state() == RunState::created);
    Rehearsal least{Duration::max(), Duration::max()};
    for (int attempt = 0; attempt < 2; ++attempt) {
        const TimePoint begin = real_clock().now();
        const Bytes snapshot = TRY(save_machine(machine_, *team_, flags_));
        const TimePoint saved = real_clock().now();
        team_->stay_awake(kExpectStart);
        auto restored = restore_machine(machine_, *team_, snapshot, std::nullopt);
        team_->stay_awake(Duration::zero());
        TRY(std::move(restored));
        least.save = std::min(least.save, saved - begin);
        least.restore = std::min(least.restore, real_clock().now() - saved);
    }
    return least;
}

Result<std::optional<TimePoint>> Lifecycle::start() {
    const Turn turn{*this};
    TRY(refuse_if_ended());
    auto running = run_if_wanted();
    team_->stay_awake(Duration::zero());
    const auto entered = TRY(std::move(running));
    if (!entered) {
        publish(RunState::paused);
    }
    return entered;
}

}  // namespace vmm
