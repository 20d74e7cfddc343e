#include "tools/vmm/sandbox.hpp"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "tools/vmm/log.hpp"
#include "tools/vmm/privileges.hpp"
#include "tools/vmm/sandbox_programs.hpp"

namespace tools {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;
using vmm::ThreadRole;

namespace {

// Sanitizers make calls of their own, which no table knows.
#ifdef GODWIT_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

Result<void> check_available() {
    const std::uint32_t action = SECCOMP_RET_KILL_PROCESS;
    if (::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) {
        return fail_errno(Code::unsupported,
                          "no sandbox: the host has no seccomp filters that end a process (Linux 4.14), or "
                          "forbids them; allow them, or go without by --no-sandbox");
    }
    return {};
}

}  // namespace

Result<void> install_filter(ThreadRole role) {
    const std::span<const sock_filter> program = sandbox_program(role);
    sock_fprog argument{static_cast<unsigned short>(program.size()),
                        const_cast<sock_filter*>(program.data())};
    // Without the flag older kernels (before 5.16) turn off speculation, for the guest too.
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &argument) != 0) {
        return fail_errno(Code::io, "install a seccomp filter; --no-sandbox goes without");
    }
    return {};
}

Result<std::unique_ptr<Sandbox>> Sandbox::begin(SandboxOptions options, std::span<const int> capabilities) {
    options.filtered = options.filtered && !kSanitized;
    if (options.filtered) {
        TRY(check_available());
        TRY(close_inherited_descriptors());
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
            return fail_errno(Code::io, "no_new_privs");
        }
    }
    if (!options.user.empty()) {
        const User user = TRY(find_user(options.user));
        TRY(become(user, capabilities));
    }
    std::unique_ptr<Sandbox> sandbox{new Sandbox{std::move(options)}};
    vmm::on_thread_start([self = sandbox.get()](ThreadRole role) {
        // What sets up is confined by who made it.
        const auto narrowed = role == ThreadRole::setup ? Result<void>{} : self->confine(role);
        if (!narrowed) {
            log_line("a thread that could not be confined: {}", narrowed.error().text());
            std::abort();
        }
    });
    return sandbox;
}

Sandbox::~Sandbox() {
    vmm::on_thread_start(nullptr);
}

Result<void> Sandbox::confine(ThreadRole role) const {
    if (!options_.user.empty()) {
        TRY(drop_capabilities());
    }
    return options_.filtered ? install_filter(role) : Result<void>{};
}

}  // namespace tools
