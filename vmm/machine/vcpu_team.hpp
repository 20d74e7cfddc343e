// VcpuTeam: the threads of all vCPUs of a machine. Everything is asked of all before any is waited for.
#pragma once

#include "vmm/machine/machine.hpp"
#include "vmm/machine/vcpu_thread.hpp"

namespace vmm {

// Called by one thread at a time.
class VcpuTeam {
  public:
    // All parked. The machine must outlive the team.
    static Result<std::unique_ptr<VcpuTeam>> create(Machine& machine);
    VcpuTeam(const VcpuTeam&) = delete;
    VcpuTeam& operator=(const VcpuTeam&) = delete;

    // All run. The time just before the first KVM_RUN of vCPU 0. After an error all are parked.
    Result<TimePoint> run();
    // All are out of the guest, with their last exit completed.
    void park();
    // Runs `task` for each vCPU, on its own thread, all at once; the first error by vCPU number. All are
    // parked.
    Result<void> for_each(const VcpuThread::Task& task);
    // As many as the host has CPUs for besides the caller's: VcpuThread::stay_awake().
    void stay_awake(Duration limit);
    // Whether any vCPU did: VcpuThread::ever_entered().
    bool ever_entered() const;

  private:
    explicit VcpuTeam(Machine& machine);

    ExitDispatcher dispatcher_;
    std::vector<std::unique_ptr<VcpuThread>> threads_;
};

}  // namespace vmm
