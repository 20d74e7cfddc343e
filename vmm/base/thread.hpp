// start_thread(): a thread with a name and a role, or why the host has none left.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "vmm/base/result.hpp"

namespace vmm {

// What a thread is there for. The process may give each role no more rights than it needs.
enum class ThreadRole : std::uint8_t {
    setup,      // makes machines and whatever belongs to them; any thread, until it says otherwise
    control,    // serves those who ask for something, and begins migrations
    machine,    // pauses, resumes, resets and ends the machine
    vcpu,       // runs the guest
    io,         // serves devices
    migration,  // leads a migration, at either side
    pages,      // moves memory
    storage,    // waits for storage
};
inline constexpr std::size_t kThreadRoles = 8;

// `name`, cut to what the host shows: 15 characters. It has CpuUse::service. Code::io: no more threads;
// nothing was called.
Result<std::thread> start_thread(std::string name, ThreadRole role, std::function<void()> function);

// Every thread of start_thread() calls this before its function, from now on; nullptr: nothing. While there
// is one thread.
void on_thread_start(std::function<void(ThreadRole)> call);

// What the calling thread needs CPUs for. It counts where threads of this process want the same one, and the
// scheduler does what it can. Threads take over that of their maker.
enum class CpuUse : std::uint8_t {
    guest,    // a vCPU: the kernel's own slices (sched_setattr(2), Linux 6.12), some milliseconds
    service,  // brief slices: it comes before the vCPU that it serves, which soon has the CPU again
    bulk,  // a third of a guest's share, while there is a guest to disturb. Only where the process may take
           // its full share again (setpriority(2): CAP_SYS_NICE or RLIMIT_NICE); else it has that.
};
void use_cpu_for(CpuUse use);
// Lets whoever waits for this CPU have it before the scheduler's next tick (up to 4 ms later), so that bulk
// work does not hold a vCPU up. Costs next to nothing where nobody waits; where others have the CPU for long,
// the thread then keeps it as long, or it would starve on a busy host.
void yield_cpu();
// Moves the calling thread to another CPU, if it may use one; the scheduler may bring it back at any time.
void leave_cpu();

}  // namespace vmm
