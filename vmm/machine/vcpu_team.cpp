#include "vmm/machine/vcpu_team.hpp"

#include <sched.h>

#include <algorithm>

namespace vmm {

VcpuTeam::VcpuTeam(Machine& machine) : dispatcher_(machine.ports(), machine.mmio(), machine.requests()) {
}

Result<std::unique_ptr<VcpuTeam>> VcpuTeam::create(Machine& machine) {
    std::unique_ptr<VcpuTeam> team{new VcpuTeam{machine}};
    for (const auto& vcpu : machine.vcpus()) {
        team->threads_.push_back(TRY(VcpuThread::create(*vcpu, team->dispatcher_)));
    }
    return team;
}

Result<TimePoint> VcpuTeam::run() {
    for (const auto& thread : threads_) {
        thread->run();
    }
    auto entered = threads_.front()->wait_entered();
    if (!entered) {
        park();
    }
    return entered;
}

void VcpuTeam::park() {
    for (const auto& thread : threads_) {
        thread->request_park();
    }
    for (const auto& thread : threads_) {
        thread->wait_parked();
    }
}

Result<void> VcpuTeam::for_each(const VcpuThread::Task& task) {
    for (const auto& thread : threads_) {
        thread->start_task(task);
    }
    Result<void> outcome;
    for (const auto& thread : threads_) {
        // Every result is waited for: the task may refer to things of the caller.
        if (auto done = thread->wait_task(); !done && outcome) {
            outcome = std::move(done);
        }
    }
    return outcome;
}

void VcpuTeam::stay_awake(Duration limit) {
    cpu_set_t cpus;
    const int count = ::sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    for (std::size_t i = 0; i < threads_.size(); ++i) {
        threads_[i]->stay_awake(static_cast<int>(i) + 1 < count ? limit : Duration::zero());
    }
}

bool VcpuTeam::ever_entered() const {
    return std::any_of(threads_.begin(), threads_.end(),
                       [](const auto& thread) { return thread->ever_entered(); });
}

}  // namespace vmm
