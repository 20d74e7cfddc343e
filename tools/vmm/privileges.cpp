#include "tools/vmm/privileges.hpp"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace tools {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;

namespace {

using Capabilities = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

// Of the calling thread.
Result<Capabilities> capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    Capabilities has{};
    if (::syscall(SYS_capget, &header, has.data()) != 0) {
        return fail_errno(Code::io, "read capabilities");
    }
    return has;
}

Result<void> keep_capabilities(std::span<const int> kept) {
    const Capabilities has = TRY(capabilities());
    Capabilities wanted{};
    for (const int capability : kept) {
        const auto word = static_cast<std::size_t>(capability / 32);
        // In a container there may be fewer; what needs it then fails, and says so.
        wanted[word].permitted |= has[word].permitted & 1U << capability % 32;
        wanted[word].effective = wanted[word].permitted;
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    if (::syscall(SYS_capset, &header, wanted.data()) != 0) {
        return fail_errno(Code::io, "drop capabilities");
    }
    return {};
}

}  // namespace

Result<User> find_user(const std::string& name) {
    errno = 0;
    const passwd* entry = ::getpwnam(name.c_str());
    if (entry == nullptr) {
        return fail(Code::invalid, "--user {}: there is no such user; make one with useradd(8)", name);
    }
    if (entry->pw_uid == 0) {
        return fail(Code::invalid, "--user {}: that is root, who loses nothing; name another user", name);
    }
    if (::geteuid() != 0) {
        return fail(Code::invalid,
                    "--user {}: only root can become another user; start vmm as {} and leave --user out",
                    name, name);
    }
    return User{name, entry->pw_uid, entry->pw_gid};
}

Result<void> become(const User& user, std::span<const int> kept) {
    if (::initgroups(user.name.c_str(), user.gid) != 0 || ::setresgid(user.gid, user.gid, user.gid) != 0 ||
        ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || ::setresuid(user.uid, user.uid, user.uid) != 0) {
        return fail_errno(Code::io, "become user {}", user.name);
    }
    TRY(keep_capabilities(kept));
    // A change of user hides the process from its own user: it could not read its own /proc/self/pagemap.
    if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) {
        return fail_errno(Code::io, "open /proc/self to user {}", user.name);
    }
    return {};
}

Result<void> drop_capabilities() {
    const Capabilities has = TRY(capabilities());
    if (std::all_of(has.begin(), has.end(), [](const auto& word) { return word.permitted == 0; })) {
        return {};  // whoever made this thread had dropped them, and its filter may forbid what follows
    }
    TRY(keep_capabilities({}));
    // Of this thread alone: glibc's own would ask the others, and their filters.
    if (::syscall(SYS_setresuid, 0, 0, 0) == 0 || ::syscall(SYS_setresgid, 0, 0, 0) == 0) {
        return fail(Code::unsupported,
                    "this thread could become root again; see the host's security modules");
    }
    return {};
}

Result<void> close_inherited_descriptors() {
    if (::close_range(STDERR_FILENO + 1, ~0U, 0) != 0) {
        return fail_errno(Code::io, "close inherited descriptors");
    }
    return {};
}

}  // namespace tools
