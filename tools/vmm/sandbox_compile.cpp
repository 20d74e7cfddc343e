// Turns the table of the sandbox into programs for the kernel, once, when vmm is built: libseccomp takes a
// quarter of a millisecond for each role, and a file, neither of which a guest's process has to spare.
// Prints what sandbox_programs.hpp declares.
#include <linux/filter.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "tools/vmm/sandbox_rules.hpp"
#include "vmm/base/unique_fd.hpp"

namespace {

void require(int result, const std::string& what) {
    if (result < 0) {
        fmt::print(stderr, "sandbox_compile: {}: {}\n", what, std::strerror(-result));
        std::exit(1);
    }
}

void add(scmp_filter_ctx filter, const tools::Rule& rule) {
    const std::uint32_t action = rule.error == 0 ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(rule.error);
    const scmp_arg_cmp condition{rule.only.argument, SCMP_CMP_MASKED_EQ, rule.only.mask, rule.only.equals};
    require(::seccomp_rule_add_array(filter, action, rule.number, rule.only.mask == 0 ? 0 : 1, &condition),
            fmt::format("rule for {} {}", rule.name, rule.only.text));
}

std::vector<sock_filter> compile(vmm::ThreadRole role) {
    const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter{::seccomp_init(SCMP_ACT_KILL_PROCESS),
                                                                  &::seccomp_release};
    require(filter == nullptr ? -ENOMEM : 0, "seccomp_init");
    require(::seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), "other ABIs");
    for (const tools::Rule& rule : tools::sandbox_rules()) {
        if (rule.is_for(role)) {
            add(filter.get(), rule);
        }
    }
    // A search instead of a list: which call comes how often differs from guest to guest.
    require(::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2), "binary search");
    const vmm::UniqueFd file{::memfd_create("filter", MFD_CLOEXEC)};
    require(::seccomp_export_bpf(filter.get(), file.get()), "export");
    const off_t bytes = ::lseek(file.get(), 0, SEEK_END);
    std::vector<sock_filter> program(static_cast<std::size_t>(bytes) / sizeof(sock_filter));
    require(::pread(file.get(), program.data(), program.size() * sizeof(sock_filter), 0) == bytes ? 0 : -EIO,
            "read the filter back");
    return program;
}

}  // namespace

int main() {
    fmt::print("#include \"tools/vmm/sandbox_programs.hpp\"\n\nnamespace tools {{\n\nnamespace {{\n\n");
    std::string names;
    for (std::size_t role = 0; role < vmm::kThreadRoles; ++role) {
        const char* name = tools::name_of(static_cast<vmm::ThreadRole>(role));
        names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
        fmt::print("constexpr sock_filter {}[] = {{\n", name);
        for (const sock_filter& i : compile(static_cast<vmm::ThreadRole>(role))) {
            fmt::print("    {{{:#x}, {}, {}, {:#x}}},\n", i.code, i.jt, i.jf, i.k);
        }
        fmt::print("}};\n\n");
    }
    fmt::print("constexpr std::span<const sock_filter> kPrograms[] = {{{}}};\n\n}}  // namespace\n\n", names);
    fmt::print(
        "std::span<const sock_filter> sandbox_program(vmm::ThreadRole role) {{\n"
        "    return kPrograms[static_cast<std::size_t>(role)];\n}}\n\n}}  // namespace tools\n");
    return std::fflush(stdout) == 0 ? 0 : 1;
}
