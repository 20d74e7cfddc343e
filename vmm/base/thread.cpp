#include "vmm/base/thread.hpp"

#include <linux/capability.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "vmm/base/clock.hpp"

namespace vmm {

namespace {

// struct sched_attr of linux/sched/types.h, which does not go with glibc's <sched.h>; its first version.
struct Attributes {
    std::uint32_t size = sizeof(Attributes);
    std::uint32_t sched_policy = 0;
    std::uint64_t sched_flags = 0;
    std::int32_t sched_nice = 0;
    std::uint32_t sched_priority = 0;
    std::uint64_t sched_runtime = 0;
    std::uint64_t sched_deadline = 0;
    std::uint64_t sched_period = 0;
};

// Whether a thread may go back to this nice value from a higher one (setpriority(2), EACCES).
bool may_go_back_to(int nice) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NICE, &limit) == 0 && limit.rlim_cur >= static_cast<rlim_t>(20 - nice)) {
        return true;
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
    return ::syscall(SYS_capget, &header, data.data()) == 0 && (data[0].effective >> CAP_SYS_NICE & 1U) != 0;
}

std::function<void(ThreadRole)>& thread_start() {
    static std::function<void(ThreadRole)> call;
    return call;
}

}  // namespace

void on_thread_start(std::function<void(ThreadRole)> call) {
    thread_start() = std::move(call);
}

void use_cpu_for(CpuUse use) {
    constexpr std::uint64_t kBrief_ns = 100'000;  // the least that the kernel takes; 0 is its own
    constexpr int kBulkNice = 5;                  // a third of the weight (sched(7), the nice value)
    thread_local int added = 0;
    const int ordinary = ::getpriority(PRIO_PROCESS, 0) - added;  // of this thread (setpriority(2), bugs)
    added = use == CpuUse::bulk && may_go_back_to(ordinary) ? kBulkNice : 0;
    Attributes attributes{};
    attributes.sched_flags = SCHED_FLAG_KEEP_POLICY;
    attributes.sched_nice = ordinary + added;
    attributes.sched_runtime = use == CpuUse::service ? kBrief_ns : 0;
    (void)::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

void yield_cpu() {
    thread_local TimePoint not_before;
    const TimePoint begin = real_clock().now();
    if (begin >= not_before) {
        (void)::sched_yield();
        const TimePoint end = real_clock().now();
        not_before = end + (end - begin);
    }
}

void leave_cpu() {
    cpu_set_t allowed;
    if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return;
    }
    cpu_set_t others = allowed;
    CPU_CLR(::sched_getcpu(), &others);
    if (CPU_COUNT(&others) > 0 && ::sched_setaffinity(0, sizeof others, &others) == 0) {
        (void)::sched_setaffinity(0, sizeof allowed, &allowed);
    }
}

Result<std::thread> start_thread(std::string name, ThreadRole role, std::function<void()> function) {
    const std::string called = name;
    // std::thread tells of a full host in no other way.
    try {
        return std::thread{[name = std::move(name), role, function = std::move(function)] {
            ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
            use_cpu_for(CpuUse::service);
            if (thread_start()) {
                thread_start()(role);
            }
            function();
        }};
    } catch (const std::system_error& error) {
        return Failure{Error::from_errno(
            Code::io,
            fmt::format("no thread for `{}`, allow more of them (pids.max of the control group, `ulimit -u`)",
                        called),
            error.code().value())};
    }
}

}  // namespace vmm
