// inject_call TID NUMBER [ARGUMENT...]: has a thread of another process make a system call, as whoever has
// taken that thread over would. Prints `returned N`, and the thread goes on as if nothing had been; or
// `killed by signal N`.
#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace {

constexpr unsigned kInstructionBytes = 2;

[[noreturn]] void give_up(const char* what) {
    fmt::print(stderr, "inject_call: {}: {}\n", what, std::strerror(errno));
    std::exit(1);
}

long request(__ptrace_request what, pid_t thread, unsigned long address, void* data) {
    errno = 0;
    const long result = ::ptrace(what, thread, address, data);
    if (errno != 0) {
        give_up("ptrace");
    }
    return result;
}

// Ends the program with the thread.
void wait_stopped(pid_t thread) {
    int status = 0;
    if (::waitpid(thread, &status, __WALL) != thread) {
        give_up("waitpid");
    }
    if (WIFSIGNALED(status)) {
        fmt::print("killed by signal {}\n", WTERMSIG(status));
        std::exit(0);
    }
}

// Where the thread has just come out of a call, so that the instruction before is one to make calls with. Its
// code is the other threads' too, and stays as it is.
user_regs_struct stop_in_call(pid_t thread) {
    constexpr unsigned long kSyscall = 0x050f;
    for (;;) {
        request(PTRACE_INTERRUPT, thread, 0, nullptr);
        wait_stopped(thread);
        user_regs_struct registers{};
        request(PTRACE_GETREGS, thread, 0, &registers);
        const long code = request(PTRACE_PEEKTEXT, thread, registers.rip - kInstructionBytes, nullptr);
        if ((static_cast<unsigned long>(code) & 0xffff) == kSyscall) {
            return registers;
        }
        request(PTRACE_CONT, thread, 0, nullptr);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3 || argc > 7) {
        fmt::print(stderr, "usage: inject_call TID NUMBER [ARGUMENT...]\n");
        return 2;
    }
    const auto number = [&](int index) { return index < argc ? std::strtoull(argv[index], nullptr, 0) : 0; };
    const auto thread = static_cast<pid_t>(number(1));
    request(PTRACE_SEIZE, thread, 0, nullptr);
    user_regs_struct before = stop_in_call(thread);
    user_regs_struct call = before;
    call.rip -= kInstructionBytes;
    call.orig_rax = static_cast<unsigned long long>(-1);  // what it waited in is not begun again meanwhile
    call.rax = number(2);
    call.rdi = number(3);
    call.rsi = number(4);
    call.rdx = number(5);
    call.r10 = number(6);
    request(PTRACE_SETREGS, thread, 0, &call);
    request(PTRACE_SINGLESTEP, thread, 0, nullptr);
    wait_stopped(thread);
    user_regs_struct after{};
    request(PTRACE_GETREGS, thread, 0, &after);
    request(PTRACE_SETREGS, thread, 0, &before);  // the kernel begins again what it waited in
    request(PTRACE_DETACH, thread, 0, nullptr);
    fmt::print("returned {}\n", static_cast<long long>(after.rax));
    return 0;
}
