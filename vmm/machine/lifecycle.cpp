#include "vmm/machine/lifecycle.hpp"

#include <pthread.h>

#include "vmm/base/check.hpp"

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
    self->thread_ = std::thread{[lifecycle = self.get()] { lifecycle->main(); }};
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
        for (const auto& device : machine_.devices()) {
            device->pause();
        }
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
    ::pthread_setname_np(::pthread_self(), "lifecycle");
    std::unique_lock lock{mutex_};
    for (;;) {
        changed_.wait(lock, [&] { return quit_ || (machine_.requests().pending() && !turn_taken_); });
        if (quit_) {
            return;
        }
        turn_taken_ = true;
        lock.unlock();
        (void)halt_machine();
        (void)run_if_wanted();  // a failure has ended the guest
        give_turn();
        lock.lock();
    }
}

void Lifecycle::halt_devices() {
    for (const auto& device : machine_.devices()) {
        device->pause();
    }
    halted_ = true;
}

// The guest may have asked for something in its last moment: an end is carried out now, a reset when it runs
// again.
Result<void> Lifecycle::halt_machine() {
    if (!halted_) {
        team_->park();
        halt_devices();
    }
    if (auto request = machine_.requests().take()) {
        if (request->kind == GuestRequest::Kind::reset) {
            flags_.reset_pending = true;
        } else {
            finish(end_of(std::move(*request)));
        }
    }
    return refuse_if_ended();
}

Result<std::optional<TimePoint>> Lifecycle::run_if_wanted() {
    if (!halted_ || !flags_.running || end()) {
        return std::nullopt;
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
        halt_devices();
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
