#include "vmm/base/thread.hpp"

#include <linux/sched.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

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

}  // namespace

void take_slices(Slice slice) {
    constexpr std::uint64_t kBrief_ns = 100'000;  // the least that the kernel takes; 0 is its own
    Attributes attributes{};
    attributes.sched_flags = SCHED_FLAG_KEEP_POLICY;
    attributes.sched_nice = ::getpriority(PRIO_PROCESS, 0);  // of this thread (setpriority(2), bugs)
    attributes.sched_runtime = slice == Slice::brief ? kBrief_ns : 0;
    (void)::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

Result<std::thread> start_thread(std::string name, std::function<void()> function) {
    const std::string called = name;
    // std::thread tells of a full host in no other way.
    try {
        return std::thread{[name = std::move(name), function = std::move(function)] {
            ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
            take_slices(Slice::brief);
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
