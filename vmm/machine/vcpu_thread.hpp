// VcpuThread: the thread of one vCPU. Parked, it waits and runs tasks; running, it enters the guest and
// serves its exits.
#pragma once

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "vmm/base/clock.hpp"
#include "vmm/kvm/vcpu.hpp"
#include "vmm/machine/exit_dispatcher.hpp"

namespace vmm {

// Called by one thread at a time, never by the vCPU's own. A parked vCPU is out of the kernel and its last
// exit is completed, so that its state is consistent.
class VcpuThread {
  public:
    using Task = std::function<Result<void>(Vcpu&)>;

    // Parked. The first KVM_RUN of a vCPU is slow and may fail: one with immediate_exit is made here, which
    // executes no guest instruction. The vCPU and the dispatcher must outlive the thread.
    static Result<std::unique_ptr<VcpuThread>> create(Vcpu& vcpu, ExitDispatcher& dispatcher);
    // Parks and joins.
    ~VcpuThread();
    VcpuThread(const VcpuThread&) = delete;
    VcpuThread& operator=(const VcpuThread&) = delete;

    // Wakes the thread, which then calls KVM_RUN. Does not wait.
    void run();
    // Waits until the thread has called KVM_RUN for the first time since run(): the time just before the
    // call. An error if the call has failed by now, or if the thread parked again without calling it.
    Result<TimePoint> wait_entered();
    // Whether it ever called KVM_RUN for the guest to run and is still in it, or came back with anything but
    // a failure. After nothing but failures the guest has not gone on; of its devices others may have seen
    // what they had in hand when they were resumed: frames, and disk requests that are carried out again.
    bool ever_entered();

    // Asks the vCPU to park (sets immediate_exit, then signals). Does not wait: all vCPUs are asked before
    // any is waited for. A vCPU also parks by itself when the dispatcher says so.
    void request_park();
    void wait_parked();

    // Runs `task` on the thread, which is parked. One task at a time: start, then wait for its result.
    void start_task(Task task);
    Result<void> wait_task();
    // After each task, until it runs, the thread waits so long without sleeping, on another CPU than the
    // caller's. For a guest that is about to run: to wake a thread takes time, and the scheduler may put it
    // where the caller then cannot go on. Zero, or no other CPU: it sleeps at once.
    void stay_awake(Duration limit);

  private:
    VcpuThread(Vcpu& vcpu, ExitDispatcher& dispatcher) : vcpu_(vcpu), dispatcher_(dispatcher) {}

    Result<void> warm_up();
    void main();
    void run_guest();
    bool stamp_entry();
    std::optional<Exit> next_exit();
    bool may_go_on();
    void complete_exit();
    void fail_run(const Error& error);
    void run_task(std::unique_lock<std::mutex>& lock);
    void wait_awake(std::unique_lock<std::mutex>& lock);
    bool wanted() const { return quit_ || task_ || !parked_; }

    Vcpu& vcpu_;
    ExitDispatcher& dispatcher_;

    std::mutex mutex_;  // guards what follows; not held in KVM_RUN, in a task or in a device
    std::condition_variable changed_;
    bool run_wanted_ = false;
    bool parked_ = true;
    bool quit_ = false;
    bool ever_entered_ = false;
    bool came_back_ = false;            // KVM_RUN, without a failure; written by the thread itself
    std::optional<TimePoint> entered_;  // since the last run()
    std::optional<Error> failure_;      // since the last run()
    Task task_;
    std::optional<Result<void>> task_result_;
    Duration awake_limit_{};
    cpu_set_t allowed_{};  // with a limit: the CPUs it had before

    std::atomic<bool> called_ = false;  // no longer to wait awake
    std::atomic<int> awake_on_ = -1;    // the CPU on which it waits awake
    std::thread thread_;
};

}  // namespace vmm
