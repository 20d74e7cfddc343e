#include "vmm/machine/vcpu_thread.hpp"

#include <pthread.h>

#include <csignal>
#include <utility>

#include "vmm/base/check.hpp"
#include "vmm/base/thread.hpp"

namespace vmm {

namespace {

int kick_signal() {
    return SIGRTMIN;
}

// The handler does nothing: that a signal comes is enough to end KVM_RUN. With SA_RESTART a device's system
// call on a vCPU thread does not notice it; KVM_RUN is not restarted (it answers EINTR itself).
Result<void> install_kick_handler() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    if (::sigaction(kick_signal(), &action, nullptr) != 0) {
        return fail_errno(Code::io, "install a handler for signal {}", kick_signal());
    }
    return {};
}

// Signals for the process go to other threads; faults must not be blocked.
void block_other_signals() {
    sigset_t blocked;
    ::sigfillset(&blocked);
    for (const int signal : {kick_signal(), SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
        ::sigdelset(&blocked, signal);
    }
    ::pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

}  // namespace

Result<std::unique_ptr<VcpuThread>> VcpuThread::create(Vcpu& vcpu, ExitDispatcher& dispatcher) {
    TRY(install_kick_handler());
    std::unique_ptr<VcpuThread> self{new VcpuThread{vcpu, dispatcher}};
    self->thread_ = TRY(start_thread(fmt::format("vcpu{}", vcpu.index()), ThreadRole::vcpu,
                                     [thread = self.get()] { thread->main(); }));
    self->start_task([thread = self.get()](Vcpu&) { return thread->warm_up(); });
    TRY(self->wait_task());
    return self;
}

VcpuThread::~VcpuThread() {
    request_park();
    {
        const std::lock_guard lock{mutex_};
        quit_ = true;
        called_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
}

Result<void> VcpuThread::warm_up() {
    vcpu_.set_immediate_exit(true);
    const Exit exit = TRY(vcpu_.run().context(fmt::format("vCPU {}", vcpu_.index())));
    if (!std::holds_alternative<InterruptedExit>(exit)) {
        return fail(Code::kvm, "vCPU {}: KVM_RUN with immediate_exit came back with an exit", vcpu_.index());
    }
    return {};
}

void VcpuThread::run() {
    if (awake_on_ == ::sched_getcpu()) {
        leave_cpu();
    }
    {
        const std::lock_guard lock{mutex_};
        VERIFY(parked_ && !task_);
        parked_ = false;
        run_wanted_ = true;
        called_ = true;
        entered_.reset();
        failure_.reset();
    }
    changed_.notify_all();
}

Result<TimePoint> VcpuThread::wait_entered() {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [&] { return entered_ || parked_; });
    if (failure_) {
        return Failure{*failure_};
    }
    if (!entered_) {
        return fail(Code::guest_ended, "vCPU {}: stopped before it ran", vcpu_.index());
    }
    return *entered_;
}

bool VcpuThread::ever_entered() {
    const std::lock_guard lock{mutex_};
    return ever_entered_;
}

void VcpuThread::request_park() {
    const std::lock_guard lock{mutex_};
    if (parked_) {
        return;
    }
    run_wanted_ = false;
    vcpu_.set_immediate_exit(true);
    ::pthread_kill(thread_.native_handle(), kick_signal());
}

void VcpuThread::wait_parked() {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [&] { return parked_; });
}

void VcpuThread::start_task(Task task) {
    {
        const std::lock_guard lock{mutex_};
        VERIFY(parked_ && !task_);
        task_ = std::move(task);
        called_ = true;
        task_result_.reset();
    }
    changed_.notify_all();
}

Result<void> VcpuThread::wait_task() {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [&] { return task_result_.has_value(); });
    return *std::exchange(task_result_, std::nullopt);
}

void VcpuThread::run_task(std::unique_lock<std::mutex>& lock) {
    const Task task = std::exchange(task_, nullptr);
    lock.unlock();
    Result<void> result = task(vcpu_);
    lock.lock();
    task_result_ = std::move(result);
    changed_.notify_all();
    wait_awake(lock);
}

void VcpuThread::wait_awake(std::unique_lock<std::mutex>& lock) {
    if (awake_limit_ == Duration::zero()) {
        return;
    }
    called_ = false;
    const TimePoint end = real_clock().now() + awake_limit_;
    lock.unlock();
    use_cpu_for(CpuUse::service);  // a yield gives a slice away
    while (!called_ && real_clock().now() < end) {
        awake_on_ = ::sched_getcpu();
        ::sched_yield();
    }
    awake_on_ = -1;
    use_cpu_for(CpuUse::guest);
    lock.lock();
}

void VcpuThread::stay_awake(Duration limit) {
    const std::lock_guard lock{mutex_};
    const pthread_t thread = thread_.native_handle();
    if (std::exchange(awake_limit_, Duration::zero()) != Duration::zero()) {
        called_ = true;
        (void)::pthread_setaffinity_np(thread, sizeof allowed_, &allowed_);
    }
    if (limit == Duration::zero() || ::pthread_getaffinity_np(thread, sizeof allowed_, &allowed_) != 0) {
        return;
    }
    cpu_set_t others = allowed_;
    CPU_CLR(::sched_getcpu(), &others);
    if (CPU_COUNT(&others) > 0 && ::pthread_setaffinity_np(thread, sizeof others, &others) == 0) {
        awake_limit_ = limit;
    }
}

void VcpuThread::main() {
    block_other_signals();
    use_cpu_for(CpuUse::guest);
    std::unique_lock lock{mutex_};
    for (;;) {
        changed_.wait(lock, [&] { return wanted(); });
        if (task_) {
            run_task(lock);
            continue;
        }
        if (!parked_) {
            if (run_wanted_) {
                // Under the lock: whoever wants it to park from here on sets it again.
                vcpu_.set_immediate_exit(false);
                lock.unlock();
                run_guest();
                lock.lock();
            }
            run_wanted_ = false;
            parked_ = true;
            changed_.notify_all();
            continue;
        }
        return;
    }
}

void VcpuThread::run_guest() {
    if (const auto told = vcpu_.notify_paused(); !told) {
        return fail_run(told.error());
    }
    if (!stamp_entry()) {
        return;
    }
    for (;;) {
        const std::optional<Exit> exit = next_exit();
        if (!exit) {
            return;
        }
        if (!std::holds_alternative<InterruptedExit>(*exit)) {
            dispatcher_.serve(vcpu_, *exit);
            if (!may_go_on()) {
                return complete_exit();
            }
        } else if (!may_go_on()) {
            return;  // an interrupted KVM_RUN has completed the exit before it
        }
    }
}

bool VcpuThread::stamp_entry() {
    const std::lock_guard lock{mutex_};
    if (!run_wanted_) {
        return false;
    }
    ever_entered_ = true;
    entered_ = real_clock().now();
    changed_.notify_all();
    return true;
}

// Nothing when KVM_RUN failed.
std::optional<Exit> VcpuThread::next_exit() {
    auto exit = vcpu_.run();
    if (!exit) {
        fail_run(exit.error());
        return std::nullopt;
    }
    if (!came_back_) {
        const std::lock_guard lock{mutex_};
        came_back_ = true;
    }
    return std::move(*exit);
}

bool VcpuThread::may_go_on() {
    if (dispatcher_.must_stop()) {
        return false;
    }
    const std::lock_guard lock{mutex_};
    return run_wanted_;
}

// KVM API 5, KVM_EXIT_IO and KVM_EXIT_MMIO: the state is consistent only after the next KVM_RUN has completed
// the access. One instruction may have several. Even if the state will be thrown away by a reset: KVM would
// complete the access on top of the new state.
void VcpuThread::complete_exit() {
    vcpu_.set_immediate_exit(true);
    for (;;) {
        const std::optional<Exit> exit = next_exit();
        if (!exit || std::holds_alternative<InterruptedExit>(*exit)) {
            return;
        }
        dispatcher_.serve(vcpu_, *exit);
    }
}

void VcpuThread::fail_run(const Error& error) {
    {
        const std::lock_guard lock{mutex_};
        failure_ = error;
        ever_entered_ = came_back_;
    }
    dispatcher_.failed(vcpu_, error);
}

}  // namespace vmm
