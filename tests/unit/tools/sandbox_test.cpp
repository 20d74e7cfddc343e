#include "tools/vmm/sandbox.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "migration/connected_socket.hpp"
#include "tools/vmm/sandbox_rules.hpp"
#include "vmm/kvm/abi.hpp"

using vmm::ThreadRole;

namespace {

struct Call {
    const char* name;
    long number;
    std::array<unsigned long, 6> arguments{};
};

enum class End { killed, error, done };

constexpr int kError = 40;
constexpr int kNoFilter = 41;

// Of a process that does `what`, which returns an exit status, under the role's filter.
template <typename F>
std::pair<End, int> end_of(ThreadRole role, F&& what) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (!tools::install_filter(role)) {
            ::syscall(SYS_exit_group, kNoFilter);
        }
        const int result = what();
        // Not _exit(2), where a sanitizer has calls of its own to make.
        ::syscall(SYS_exit_group, result);
    }
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    if (WIFSIGNALED(status)) {
        REQUIRE(WTERMSIG(status) == SIGSYS);
        return {End::killed, 0};
    }
    REQUIRE(WEXITSTATUS(status) != kNoFilter);
    return WEXITSTATUS(status) == 0 ? std::pair{End::done, 0}
                                    : std::pair{End::error, WEXITSTATUS(status) - kError};
}

std::pair<End, int> end_of(ThreadRole role, const Call& call) {
    return end_of(role, [&a = call.arguments, number = call.number] {
        errno = 0;
        const long result = ::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        return result < 0 ? kError + errno : 0;
    });
}

constexpr std::array kRoles{ThreadRole::setup, ThreadRole::control, ThreadRole::machine,
                            ThreadRole::vcpu,  ThreadRole::io,      ThreadRole::migration,
                            ThreadRole::pages, ThreadRole::storage};

unsigned long address(const void* pointer) {
    return reinterpret_cast<unsigned long>(pointer);
}

std::string contents(const std::string& path) {
    std::ifstream file{path};
    std::stringstream text;
    text << file.rdbuf();
    REQUIRE(file);
    return text.str();
}

}  // namespace

TEST_CASE("no role may do what no guest's process ever needs", "[tools]") {
    constexpr unsigned long kNowhere = static_cast<unsigned long>(-1);
    const std::array calls{
        Call{"execve", SYS_execve, {address("/bin/true")}},
        Call{"execveat", SYS_execveat, {kNowhere}},
        Call{"ptrace", SYS_ptrace},
        Call{"process_vm_readv", SYS_process_vm_readv},
        Call{"process_vm_writev", SYS_process_vm_writev},
        Call{"pidfd_getfd", SYS_pidfd_getfd},
        Call{"mount", SYS_mount},
        Call{"unshare", SYS_unshare, {CLONE_NEWUSER}},
        Call{"setns", SYS_setns, {kNowhere}},
        Call{"bpf", SYS_bpf},
        Call{"perf_event_open", SYS_perf_event_open},
        Call{"userfaultfd", SYS_userfaultfd},
        Call{"keyctl", SYS_keyctl},
        Call{"setresuid", SYS_setresuid},
        Call{"capset", SYS_capset},
        Call{"init_module", SYS_init_module},
        Call{"open_by_handle_at", SYS_open_by_handle_at, {kNowhere}},
        Call{"openat2", SYS_openat2, {kNowhere}},
        Call{"chroot", SYS_chroot, {address("/")}},
        Call{"socket(AF_PACKET)", SYS_socket, {AF_PACKET, SOCK_RAW}},
        Call{"socket(AF_VSOCK)", SYS_socket, {AF_VSOCK, SOCK_STREAM}},
        Call{"prctl(PR_SET_DUMPABLE)", SYS_prctl, {PR_SET_DUMPABLE, 1}},
        Call{"prlimit64 that sets", SYS_prlimit64, {0, 0, 1}},
        Call{"ioctl(TIOCSTI)", SYS_ioctl, {kNowhere, TIOCSTI}},
        Call{"getpid of x32", 0x4000'0000 | SYS_getpid},
    };
    for (const ThreadRole role : kRoles) {
        for (const Call& call : calls) {
            INFO(tools::name_of(role) << ": " << call.name);
            CHECK(end_of(role, call).first == End::killed);
        }
    }
}

TEST_CASE("each role may do what it is there for, and no more", "[tools]") {
    constexpr unsigned long kNowhere = static_cast<unsigned long>(-1);
    constexpr auto kHere = static_cast<unsigned long>(AT_FDCWD);
    const Call run{"KVM_RUN", SYS_ioctl, {kNowhere, KVM_RUN}};
    const Call make{"KVM_CREATE_VM", SYS_ioctl, {kNowhere, KVM_CREATE_VM}};
    const Call log{"KVM_GET_DIRTY_LOG", SYS_ioctl, {kNowhere, KVM_GET_DIRTY_LOG}};
    const Call memory{"KVM_SET_USER_MEMORY_REGION", SYS_ioctl, {kNowhere, KVM_SET_USER_MEMORY_REGION}};
    const Call read{"open to read", SYS_openat, {kHere, address("/etc/passwd"), O_RDONLY}};
    const Call write{"open to write", SYS_openat, {kHere, address("/dev/null"), O_WRONLY}};
    const Call connect{"socket(AF_INET)", SYS_socket, {AF_INET, SOCK_STREAM}};
    const Call local{"socket(AF_UNIX)", SYS_socket, {AF_UNIX, SOCK_STREAM}};
    const Call kernel{"socket(AF_NETLINK)", SYS_socket, {AF_NETLINK, SOCK_RAW}};
    const Call process{"a new process", SYS_clone, {SIGCHLD, 0}};
    const Call thread{"clone3", SYS_clone3, {0, 0}};
    const Call ring{"io_uring_setup", SYS_io_uring_setup, {1, 0}};
    const Call submit{"io_uring_enter", SYS_io_uring_enter, {kNowhere, 0, 0, 0}};
    const Call data{
        "mmap", SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, kNowhere}};
    const Call code{"mmap of code", SYS_mmap, {0, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, kNowhere}};
    const Call sync{"fdatasync", SYS_fdatasync, {kNowhere}};
    struct Case {
        ThreadRole role;
        Call call;
        std::pair<End, int> end;
    };
    const std::pair killed{End::killed, 0};
    const std::pair done{End::done, 0};
    const auto error = [](int number) { return std::pair{End::error, number}; };
    const std::array cases{
        Case{ThreadRole::vcpu, run, error(EBADF)},
        Case{ThreadRole::vcpu, make, killed},
        Case{ThreadRole::vcpu, memory, killed},
        Case{ThreadRole::vcpu, read, error(EACCES)},
        Case{ThreadRole::vcpu, write, killed},
        Case{ThreadRole::vcpu, connect, killed},
        Case{ThreadRole::vcpu, thread, killed},
        Case{ThreadRole::vcpu, submit, killed},
        Case{ThreadRole::vcpu, data, done},
        Case{ThreadRole::vcpu, code, killed},
        Case{ThreadRole::io, submit, error(EBADF)},
        Case{ThreadRole::io, ring, killed},
        Case{ThreadRole::io, run, killed},
        Case{ThreadRole::io, write, killed},
        Case{ThreadRole::io, connect, killed},
        Case{ThreadRole::machine, run, killed},
        Case{ThreadRole::machine, write, killed},
        Case{ThreadRole::machine, connect, killed},
        Case{ThreadRole::pages, log, killed},
        Case{ThreadRole::pages, write, killed},
        Case{ThreadRole::pages, connect, killed},
        Case{ThreadRole::storage, sync, error(EBADF)},
        Case{ThreadRole::storage, write, killed},
        Case{ThreadRole::migration, log, error(EBADF)},
        Case{ThreadRole::migration, run, killed},
        Case{ThreadRole::migration, read, done},
        Case{ThreadRole::migration, write, done},
        Case{ThreadRole::migration, connect, done},
        Case{ThreadRole::migration, local, error(EACCES)},
        Case{ThreadRole::migration, kernel, error(EACCES)},
        Case{ThreadRole::migration, process, killed},
        Case{ThreadRole::migration, thread, error(ENOSYS)},
        Case{ThreadRole::migration, ring, killed},
        Case{ThreadRole::migration, code, error(EACCES)},
        Case{ThreadRole::control, connect, done},
        Case{ThreadRole::control, process, killed},
        Case{ThreadRole::control, ring, killed},
        Case{ThreadRole::control, make, killed},
        Case{ThreadRole::control, run, killed},
        Case{ThreadRole::setup, make, error(EBADF)},
        Case{ThreadRole::setup, ring, error(EFAULT)},
        Case{ThreadRole::setup, local, done},
    };
    for (const Case& each : cases) {
        INFO(tools::name_of(each.role) << ": " << each.call.name);
        CHECK(end_of(each.role, each.call) == each.end);
    }
}

// The source gives up a connection so when it does not know what became of its guest.
TEST_CASE("a connection that the kernel does not dissolve is aborted by other means", "[tools]") {
    const auto socket = migration::ConnectedSocket::adopt(
        vmm::UniqueFd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)}, "peer");
    REQUIRE(socket);
    // As a connection that the kernel encrypts, a Unix socket refuses connect(2) to nobody.
    std::array<int, 2> ends{-1, -1};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    const vmm::UniqueFd ours{ends[0]};
    const vmm::UniqueFd peer{ends[1]};
    REQUIRE(::dup3(ours.get(), socket->fd(), O_CLOEXEC) == socket->fd());
    const auto end = end_of(ThreadRole::migration, [&] {
        socket->abort();
        const std::byte byte{};
        const bool sent = ::send(socket->fd(), &byte, 1, MSG_NOSIGNAL) == 1;
        // Nor is the number free, for others to take.
        return sent ? kError : ::fcntl(socket->fd(), F_GETFD) == -1 ? kError + errno : 0;
    });
    CHECK(end == std::pair{End::done, 0});
}

// A filter can only be narrowed.
TEST_CASE("who makes threads may do all that these may", "[tools]") {
    constexpr std::array kMade{std::pair{ThreadRole::control, ThreadRole::migration},
                               std::pair{ThreadRole::migration, ThreadRole::pages},
                               std::pair{ThreadRole::migration, ThreadRole::storage}};
    const auto rules = tools::sandbox_rules();
    for (const tools::Rule& rule : rules) {
        if (rule.error != 0) {
            continue;
        }
        INFO(rule.name << " " << rule.only.text);
        for (const auto& [maker, made] : kMade) {
            CHECK((rule.is_for(maker) || !rule.is_for(made)));
        }
        const bool wider = std::any_of(rules.begin(), rules.end(), [&](const tools::Rule& other) {
            return other.number == rule.number && other.is_for(ThreadRole::setup) &&
                   (other.only.mask == 0 || other.only.equals == rule.only.equals);
        });
        CHECK(wider);
    }
}

TEST_CASE("every request that is made of KVM is allowed to somebody", "[tools]") {
    const auto rules = tools::sandbox_rules();
    const std::regex request{R"(KVM_REQUEST\((KVM_\w+)\))"};
    std::size_t found = 0;
    for (const auto& file :
         std::filesystem::directory_iterator{std::string{GODWIT_SOURCE_DIR} + "/vmm/kvm"}) {
        if (file.path().extension() != ".cpp" || file.path().filename() == "requests.cpp") {
            continue;
        }
        const std::string text = contents(file.path());
        for (std::sregex_iterator match{text.begin(), text.end(), request}, end; match != end; ++match) {
            const std::string name = (*match)[1];
            INFO(file.path().filename().string() << ": " << name);
            CHECK(std::any_of(rules.begin(), rules.end(),
                              [&](const tools::Rule& rule) { return rule.only.text == name; }));
            ++found;
        }
    }
    CHECK(found > 50);
}

TEST_CASE("docs/sandbox.md shows the table that the filters are made of", "[tools]") {
    const std::string table = tools::describe_rules();
    INFO("docs/sandbox.md lacks this:\n" << table);
    CHECK(contents(std::string{GODWIT_SOURCE_DIR} + "/docs/sandbox.md").find(table) != std::string::npos);
}

TEST_CASE("docs/sandbox.md names every thread under its role", "[tools]") {
    const std::string root = GODWIT_SOURCE_DIR;
    const std::string page = contents(root + "/docs/sandbox.md");
    const std::regex start{
        R"(start(?:_thread)?\(\s*(?:fmt::format\()?"(\w+)[^,]*(?:, [\w.()>-]+\))?,\s*(?:vmm::)?ThreadRole::(\w+))"};
    std::size_t found = 0;
    for (const char* folder : {"/vmm", "/devices", "/migration", "/tools/vmm"}) {
        for (const auto& file : std::filesystem::recursive_directory_iterator{root + folder}) {
            if (file.path().extension() != ".cpp") {
                continue;
            }
            const std::string text = contents(file.path());
            for (std::sregex_iterator match{text.begin(), text.end(), start}, end; match != end; ++match) {
                const std::regex row{
                    fmt::format(R"(\n\| `{}` \|.*`{}N?`)", (*match)[2].str(), (*match)[1].str())};
                INFO(file.path().string() << ": " << (*match)[1] << ", " << (*match)[2]);
                CHECK(std::regex_search(page, row));
                ++found;
            }
        }
    }
    CHECK(found > 10);
}
