#include "vmm/machine/lifecycle.hpp"

#include <algorithm>

#include "vmm/base/check.hpp"
#include "vmm/base/thread.hpp"

namespace vmm {

namespace {

GuestEnd end_of(GuestRequest request) {
    using Kind = GuestRequest::Kind;
    using Reason = GuestEnd::Reason;
    switch (request.kind) {
        case Kind::exit:
            return {Reason::exit_port, request.value, {}};
        case Kind::power_off:
            return {Reason::power_off, 0, {}};
        case Kind::reset:
        case Kind::crash:
            break;
    }
    return {Reason::crash, 0, std::move(request.text)};
}

}  // namespace

Result<std::unique_ptr<Lifecycle>> Lifecycle::create(Machine& machine) {
    std::unique_ptr<Lifecycle> self{new Lifecycle{machine, TRY(WakeFd::create())}};
    self->team_ = TRY(VcpuTeam::create(machine));
    self->pristine_ = TRY(capture_pristine(machine, *self->team_));
    machine.requests().on_post([lifecycle = self.get()] {
        // The lock orders this with a waiter that has just found nothing pending.
        { const std::lock_guard lock{lifecycle->mutex_}; }
        lifecycle->changed_.notify_all();
    });
    self->thread_ =
        TRY(start_thread("lifecycle", ThreadRole::machine, [lifecycle = self.get()] { lifecycle->main(); }));
    return self;
}

Lifecycle::~Lifecycle() {
    {
        const std::lock_guard lock{mutex_};
        quit_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
    if (!halted_) {
        team_->park();
        (void)pause_devices(Duration::zero());
    }
    team_.reset();
    machine_.requests().on_post(nullptr);
}

void Lifecycle::take_turn() {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [&] { return !turn_taken_; });
    turn_taken_ = true;
}

void Lifecycle::give_turn() {
    {
        const std::lock_guard lock{mutex_};
        turn_taken_ = false;
    }
    changed_.notify_all();
}

Result<void> Lifecycle::refuse_if_ended() const {
    const std::lock_guard lock{mutex_};
    if (end_) {
        return fail(Code::guest_ended, "the guest has ended{}{}", end_->text.empty() ? "" : ": ", end_->text);
    }
    return {};
}

void Lifecycle::publish(RunState state) {
    const std::lock_guard lock{mutex_};
    state_ = state;
}

void Lifecycle::finish(GuestEnd end) {
    {
        const std::lock_guard lock{mutex_};
        VERIFY(!end_);
        end_ = std::move(end);
        state_ = RunState::ended;
        ended_.wake();  // under the lock: who sees the end finds end_fd() readable
    }
    changed_.notify_all();
}

void Lifecycle::main() {
    std::unique_lock lock{mutex_};
    for (;;) {
        changed_.wait(lock, [&] { return quit_ || (machine_.requests().pending() && !turn_taken_); });
        if (quit_) {
            return;
        }
        turn_taken_ = true;
        lock.unlock();
        (void)halt_machine(kDeviceLimit);
        (void)run_if_wanted();  // a failure has ended the guest, or left it paused
        give_turn();
        lock.lock();
    }
}

// All or none.
Result<Drain> Lifecycle::pause_devices(Duration limit) {
    const auto devices = machine_.devices();
    const TimePoint begin = real_clock().now();
    Drain drain;
    for (std::size_t i = 0; i < devices.size(); ++i) {
        const Duration spent = real_clock().now() - begin;
        const auto paused = devices[i]->pause(std::max(limit - spent, Duration::zero()));
        if (!paused) {
            for (std::size_t j = 0; j < i; ++j) {
                devices[j]->resume();
            }
            return Failure{paused.error()};
        }
        drain.requests += *paused;
    }
    halted_ = true;
    drain.time = real_clock().now() - begin;
    return drain;
}

// vCPUs are parked and the devices could not be paused: the guest is as it was, but for what it asked for in
// its last moment, which cannot wait for such a device.
Error Lifecycle::go_on_after(Error error) {
    auto request = machine_.requests().take();
    if (request && request->kind == GuestRequest::Kind::reset) {
        finish({GuestEnd::Reason::crash, 0, fmt::format("the guest cannot be reset: {}", error.text())});
    } else if (request) {
        finish(end_of(std::move(*request)));
    } else if (auto entered = team_->run(); !entered) {
        finish({GuestEnd::Reason::crash, 0, entered.error().text()});
    }
    return error;
}

// vCPUs were parked, devices were not paused.
Result<void> Lifecycle::unpark() {
    if (machine_.requests().pending()) {
        TRY(halt_machine(kDeviceLimit));
        TRY(run_if_wanted());
        return {};
    }
    if (auto entered = team_->run(); !entered) {
        finish({GuestEnd::Reason::crash, 0, entered.error().text()});
        return Failure{entered.error()};
    }
    return {};
}

// The guest may have asked for something in its last moment: an end is carried out now, a reset when it runs
// again.
Result<Drain> Lifecycle::halt_machine(Duration limit) {
    Drain drain;
    if (!halted_ && !end()) {
        team_->park();
        auto paused = pause_devices(limit);
        if (!paused) {
            return Failure{go_on_after(std::move(paused).error())};
        }
        drain = *paused;
    }
    if (auto request = machine_.requests().take(); request && !end()) {
        if (request->kind == GuestRequest::Kind::reset) {
            flags_.reset_pending = true;
        } else {
            finish(end_of(std::move(*request)));
        }
    }
    TRY(refuse_if_ended());
    return drain;
}

Result<std::optional<TimePoint>> Lifecycle::run_if_wanted() {
    if (!halted_ || !flags_.running || end()) {
        return std::nullopt;
    }
    if (auto taken = take_exclusives(); !taken) {
        flags_.running = false;
        publish(RunState::paused);
        return Failure{std::move(taken).error()};
    }
    auto entered = try_run();
    if (!entered) {
        // All vCPUs are parked. What one of them reported itself says more than our error.
        auto request = machine_.requests().take();
        finish(request && request->kind == GuestRequest::Kind::crash
                   ? end_of(std::move(*request))
                   : GuestEnd{GuestEnd::Reason::crash, 0, entered.error().text()});
        return Failure{entered.error()};
    }
    return *entered;
}

Result<TimePoint> Lifecycle::try_run() {
    if (flags_.reset_pending) {
        TRY(reset_machine(machine_, *team_, pristine_).context("reset"));
        flags_.reset_pending = false;
        const std::lock_guard lock{mutex_};
        ++resets_;
    }
    for (const auto& device : machine_.devices()) {
        device->resume();
    }
    halted_ = false;
    publish(RunState::running);
    auto entered = team_->run();
    if (!entered) {
        (void)pause_devices(kDeviceLimit);  // the guest has ended
    }
    return entered;
}

RunState Lifecycle::state() const {
    const std::lock_guard lock{mutex_};
    return state_;
}

std::optional<GuestEnd> Lifecycle::end() const {
    const std::lock_guard lock{mutex_};
    return end_;
}

GuestEnd Lifecycle::wait_end() {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [&] { return end_.has_value(); });
    return *end_;
}

std::uint64_t Lifecycle::resets() const {
    const std::lock_guard lock{mutex_};
    return resets_;
}

}  // namespace vmm
