#include "tools/vmm/sandbox_rules.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

#include "vmm/guest/pagemap_abi.hpp"
#include "vmm/kvm/requests.hpp"

namespace tools {

using vmm::ThreadRole;

namespace {

constexpr unsigned bit(ThreadRole role) {
    return 1U << static_cast<unsigned>(role);
}

constexpr unsigned kSetup = bit(ThreadRole::setup);
constexpr unsigned kEvery = (1U << vmm::kThreadRoles) - 1;
// A filter is inherited, and can only be narrowed: who makes a thread may do whatever that one may. Anybody
// may be made during set-up; the control thread makes those that lead migrations, and these make the rest.
constexpr unsigned kControl = bit(ThreadRole::control) | kSetup;
constexpr unsigned kMigration = bit(ThreadRole::migration) | kControl;
constexpr unsigned kPages = bit(ThreadRole::pages) | kMigration;
constexpr unsigned kStorage = bit(ThreadRole::storage) | kMigration;
// Who leads a migration pauses and resumes the machine too.
constexpr unsigned kMachine = bit(ThreadRole::machine) | kMigration;
constexpr unsigned kVcpu = bit(ThreadRole::vcpu) | kSetup;
constexpr unsigned kIo = bit(ThreadRole::io) | kSetup;
constexpr unsigned kMakers = kMigration;

constexpr std::uint64_t kWord = 0xffff'ffff;  // an int

#define CALL(NAME) #NAME, SYS_##NAME

constexpr Rule::Condition kNotExecutable{2, PROT_EXEC, 0, "memory that is not executable"};
constexpr Rule::Condition kExecutable{2, PROT_EXEC, PROT_EXEC, "executable memory"};

constexpr std::array kRules{
    // What every thread needs to run at all: memory, locks, time, its place on the CPUs, the signal that
    // calls a vCPU out of the guest, and its end.
    Rule{CALL(mmap), kEvery, kNotExecutable},
    Rule{CALL(mprotect), kEvery, kNotExecutable},
    Rule{CALL(munmap), kEvery},
    Rule{CALL(mremap), kEvery},
    Rule{CALL(madvise), kEvery},
    Rule{CALL(brk), kEvery},
    Rule{CALL(futex), kEvery},
    Rule{CALL(clock_gettime), kEvery},
    Rule{CALL(clock_nanosleep), kEvery},
    Rule{CALL(gettimeofday), kEvery},
    Rule{CALL(time), kEvery},
    Rule{CALL(restart_syscall), kEvery},
    Rule{CALL(sched_yield), kEvery},
    Rule{CALL(sched_getaffinity), kEvery},
    Rule{CALL(sched_setaffinity), kEvery},
    Rule{CALL(sched_setattr), kEvery},
    Rule{CALL(getcpu), kEvery},
    Rule{CALL(getpriority), kEvery},
    Rule{CALL(capget), kEvery},
    Rule{CALL(prlimit64), kEvery, {2, ~std::uint64_t{0}, 0, "reading a limit"}},
    Rule{CALL(rt_sigaction), kEvery},
    Rule{CALL(rt_sigprocmask), kEvery},
    Rule{CALL(rt_sigreturn), kEvery},
    Rule{CALL(getpid), kEvery},
    Rule{CALL(gettid), kEvery},
    Rule{CALL(tgkill), kEvery},
    Rule{CALL(set_robust_list), kEvery},
    Rule{CALL(rseq), kEvery},
    Rule{CALL(prctl), kEvery, {0, kWord, PR_SET_NAME, "PR_SET_NAME"}},
    Rule{CALL(exit), kEvery},
    Rule{CALL(exit_group), kEvery},
    Rule{CALL(getrandom), kEvery},
    // Descriptors that are open already: events, the log, a device's back end.
    Rule{CALL(read), kEvery},
    Rule{CALL(readv), kEvery},
    Rule{CALL(write), kEvery},
    Rule{CALL(writev), kEvery},
    Rule{CALL(close), kEvery},
    Rule{CALL(poll), kEvery},
    Rule{CALL(ppoll), kEvery},
    Rule{CALL(epoll_ctl), kEvery},

    // Event loops and those who connect to them.
    Rule{CALL(epoll_wait), kIo | kControl},
    Rule{CALL(accept4), kIo | kControl},
    Rule{CALL(sendto), kIo | kMigration},
    Rule{CALL(recvfrom), kIo | kMigration},
    Rule{CALL(rt_sigtimedwait), kIo | kControl},
    Rule{CALL(newfstatat), kIo | kMigration},
    Rule{CALL(fcntl), kIo | kMachine},
    Rule{CALL(timerfd_settime), kIo | kMachine},
    Rule{CALL(io_uring_enter), kIo},

    // Another host, and finding its address (which asks the kernel for its own by netlink, and may do
    // without).
    Rule{CALL(sendmsg), kPages},
    Rule{CALL(recvmsg), kPages},
    Rule{CALL(getsockopt), kPages},
    Rule{CALL(shutdown), kPages},
    Rule{CALL(socket), kMigration, {0, kWord, AF_INET, "AF_INET"}},
    Rule{CALL(socket), kMigration, {0, kWord, AF_INET6, "AF_INET6"}},
    Rule{CALL(socket), kSetup, {0, kWord, AF_UNIX, "AF_UNIX"}},
    Rule{CALL(socket), kMigration & ~kSetup, {0, kWord, AF_UNIX, "AF_UNIX"}, EACCES},
    Rule{CALL(socket), kMigration, {0, kWord, AF_NETLINK, "AF_NETLINK"}, EACCES},
    Rule{CALL(connect), kMigration},
    Rule{CALL(dup3), kMigration},  // over a connection that must send no more
    Rule{CALL(setsockopt), kMigration},
    Rule{CALL(getsockname), kMigration},
    Rule{CALL(getpeername), kMigration},
    Rule{CALL(sendmmsg), kMigration},
    Rule{CALL(uname), kMigration},
    Rule{CALL(sysinfo), kMigration},  // qsort(3), of the C library, asks how much memory there is

    // Handover records, /proc/self/pagemap, and the files that name hosts.
    Rule{CALL(openat), kMigration},
    // Elsewhere malloc() may look at /proc/sys/vm/overcommit_memory, and does without.
    Rule{CALL(openat), kEvery & ~kMigration, {2, O_ACCMODE | O_CREAT, O_RDONLY, "reading"}, EACCES},
    Rule{CALL(pread64), kPages},
    Rule{CALL(pwrite64), kPages},
    Rule{CALL(lseek), kMigration},
    Rule{CALL(fsync), kMigration},
    Rule{CALL(fdatasync), kStorage},
    Rule{CALL(geteuid), kMigration},
    Rule{CALL(mkdir), kControl},
    Rule{CALL(getdents64), kControl},
    Rule{CALL(flock), kControl},
    Rule{CALL(unlink), kControl},
    Rule{CALL(unlinkat), kControl},

    // Threads, but no processes; glibc tries clone3(2) first, whose flags no filter sees.
    Rule{CALL(clone), kMakers & ~kSetup, {0, CLONE_THREAD, CLONE_THREAD, "a thread of this process"}},
    Rule{CALL(clone3), kMakers, {}, ENOSYS},
    Rule{CALL(seccomp), kMakers, {0, kWord, SECCOMP_SET_MODE_FILTER, "narrowing a filter"}},
    // A module that would find hosts in other ways than files and DNS is not loaded.
    Rule{CALL(mmap), kMigration, kExecutable, EACCES},
    Rule{CALL(mprotect), kMigration, kExecutable, EACCES},

    // Set-up of a guest that arrives, and the listener.
    Rule{CALL(clone), kSetup},
    Rule{CALL(wait4), kSetup},
    Rule{CALL(kill), kSetup},
    Rule{CALL(pidfd_open), kSetup},
    Rule{CALL(setpgid), kSetup},
    Rule{CALL(getpgrp), kSetup},
    Rule{CALL(getpgid), kSetup},
    Rule{CALL(socketpair), kSetup},
    Rule{CALL(bind), kSetup},
    Rule{CALL(listen), kSetup},
    Rule{CALL(epoll_create1), kSetup},
    Rule{CALL(eventfd2), kSetup},
    Rule{CALL(timerfd_create), kSetup},
    Rule{CALL(io_uring_setup), kSetup},
    Rule{CALL(io_uring_register), kSetup},
    Rule{CALL(access), kSetup},
    Rule{CALL(statx), kSetup},
    Rule{CALL(fchmod), kSetup},
};

struct Ioctl {
    unsigned long number;
    const char* name;
    unsigned roles;
};

constexpr std::array kIoctls{
    Ioctl{TUNSETIFF, "TUNSETIFF", kSetup},
    Ioctl{TUNSETVNETHDRSZ, "TUNSETVNETHDRSZ", kSetup},
    // What the guest's driver takes in; none, after a reset.
    Ioctl{TUNSETOFFLOAD, "TUNSETOFFLOAD", kVcpu | kMachine},
    Ioctl{TCGETS, "TCGETS", kControl},
    Ioctl{TCSETS, "TCSETS", kControl},
    Ioctl{TIOCGPGRP, "TIOCGPGRP", kSetup},
    Ioctl{FIONREAD, "FIONREAD", kMigration},
    Ioctl{SIOCGIFINDEX, "SIOCGIFINDEX", kMigration},  // the scope of a link-local address
    Ioctl{SIOCGIFNAME, "SIOCGIFNAME", kMigration},
    Ioctl{vmm::abi::kPagemapScan, "PAGEMAP_SCAN", kPages},
};

Rule rule_of(const Ioctl& ioctl) {
    return {CALL(ioctl), ioctl.roles, {1, kWord, ioctl.number, ioctl.name}};
}

void add(std::vector<Rule>& rules, std::span<const vmm::KvmRequest> requests, unsigned roles) {
    for (const vmm::KvmRequest& request : requests) {
        const auto same = [&](const Rule& rule) {
            return rule.number == SYS_ioctl && rule.only.equals == request.number;
        };
        if (const auto known = std::find_if(rules.begin(), rules.end(), same); known != rules.end()) {
            known->roles |= roles;
        } else {
            rules.push_back(rule_of({request.number, request.name, roles}));
        }
    }
}

// Of the rules of one call, what it is for.
std::string text_of(const Rule& rule) {
    const std::string only = rule.only.mask == 0 ? "" : rule.only.text;
    if (rule.error == 0) {
        return only;
    }
    return fmt::format("{}{}fails with {}", only, only.empty() ? "" : ": ",
                       rule.error == EACCES ? "EACCES" : "ENOSYS");
}

}  // namespace

std::vector<Rule> sandbox_rules() {
    std::vector<Rule> rules{kRules.begin(), kRules.end()};
    for (const Ioctl& ioctl : kIoctls) {
        rules.push_back(rule_of(ioctl));
    }
    add(rules, vmm::vcpu_requests(), kVcpu);
    add(rules, vmm::interrupt_requests(), kVcpu | kIo | kMachine);
    add(rules, vmm::machine_requests(), kMachine);
    add(rules, vmm::rearm_requests(), kPages);
    add(rules, vmm::dirty_log_requests(), kMigration);
    add(rules, vmm::set_up_requests(), kSetup);
    return rules;
}

const char* name_of(ThreadRole role) {
    constexpr std::array<const char*, vmm::kThreadRoles> kNames{"setup", "control",   "machine", "vcpu",
                                                                "io",    "migration", "pages",   "storage"};
    return kNames[static_cast<std::size_t>(role)];
}

std::string describe_rules() {
    std::string every;
    std::string others;
    for (const Rule& rule : sandbox_rules()) {
        const std::string text = text_of(rule);
        if (rule.roles == kEvery) {
            every += fmt::format("{}`{}`{}{}{}", every.empty() ? "" : ", ", rule.name,
                                 text.empty() ? "" : " (", text, text.empty() ? "" : ")");
            continue;
        }
        others += fmt::format("| `{}` | {} |", rule.name, text);
        for (std::size_t role = 0; role < vmm::kThreadRoles; ++role) {
            others += rule.is_for(static_cast<ThreadRole>(role)) ? " x |" : " |";
        }
        others += '\n';
    }
    std::string head = "| call | only |";
    std::string line = "|---|---|";
    for (std::size_t role = 0; role < vmm::kThreadRoles; ++role) {
        head += fmt::format(" {} |", name_of(static_cast<ThreadRole>(role)));
        line += "---|";
    }
    return fmt::format("Every role: {}.\n\n{}\n{}\n{}", every, head, line, others);
}

}  // namespace tools
