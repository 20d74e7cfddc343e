#include "vmm/machine/loader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/unique_fd.hpp"
#include "vmm/machine/acpi.hpp"
#include "vmm/machine/linux_header.hpp"
#include "vmm/machine/loader_formats.hpp"
#include "vmm/machine/reset_vector.hpp"

namespace vmm {

Result<Bytes> read_boot_file(const std::string& path, std::string_view what, std::size_t limit) {
    // Without O_NONBLOCK opening a FIFO would wait for a writer.
    const UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0) {
        return fail_errno(Code::io, "open {} {}", what, path);
    }
    if (!S_ISREG(status.st_mode)) {
        return fail(Code::invalid, "{} {}: not a regular file", what, path);
    }
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size == 0) {
        return fail(Code::invalid, "{} {}: the file is empty", what, path);
    }
    if (size > limit) {
        return fail(Code::limit, "{} {}: {} bytes are more than the {} MiB allowed", what, path, size,
                    limit >> 20);
    }
    Bytes bytes(size);
    std::size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t count = ::read(fd.get(), bytes.data() + done, bytes.size() - done);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return fail_errno(Code::io, "read {} {}", what, path);
        }
        if (count == 0) {
            return fail(Code::io, "{} {}: it became shorter while it was read", what, path);
        }
        done += static_cast<std::size_t>(count);
    }
    return bytes;
}

namespace {

Result<void> load_by_format(std::span<const std::byte> file, BootPlan& plan) {
    const std::optional<std::size_t> multiboot = find_multiboot(file);
    if (is_elf(file)) {
        // A multiboot header may put an ELF file where its own program headers do not, so they matter only
        // for PVH.
        auto elf = parse_elf(file);
        if (elf && elf->pvh_entry) {
            return load_pvh(*elf, plan);
        }
        if (!multiboot) {
            TRY(std::move(elf));
            return fail(
                Code::unsupported,
                "image: an ELF file without a PVH entry note or a multiboot header; link one of them in");
        }
    }
    if (multiboot) {
        return load_multiboot(file, *multiboot, plan);
    }
    if (is_linux(file)) {
        return load_linux(file, plan);
    }
    return load_flat(file, plan);
}

}  // namespace

Result<Module> add_initrd(BootPlan& plan, std::uint64_t end) {
    if (plan.initrd.empty()) {
        return Module{};
    }
    const std::string what = "initrd";
    const std::uint64_t size = plan.initrd.size();
    const std::uint64_t start = TRY(plan.layout.find_below(end, size, what));
    TRY(plan.layout.add(plan.image, start, std::move(plan.initrd), size, what));
    return Module{start, size};
}

Result<BootImage> load_image(std::span<const std::byte> file, BootOptions options) {
    const std::string_view line = options.command_line;
    if (line.size() > kMaxCommandLine || line.find('\0') != std::string_view::npos) {
        return fail(Code::invalid, "command line: {} bytes; it may have {} and no zero byte among them",
                    line.size(), kMaxCommandLine);
    }
    BootPlan plan{line, std::move(options.initrd), BootLayout{options.memory}, {}};
    TRY(load_by_format(file, plan));
    TRY(plan.layout.add_firmware(plan.image, kResetVector, reset_vector(options.platform.power),
                                 "reset vector"));
    TRY(plan.layout.add_firmware(plan.image, kRsdpAddress, acpi_tables(options.platform, kRsdpAddress),
                                 "ACPI tables"));
    return std::move(plan.image);
}

}  // namespace vmm
