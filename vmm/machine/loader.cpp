#include "vmm/machine/loader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/unique_fd.hpp"
#include "vmm/machine/loader_formats.hpp"

namespace vmm {

Result<Bytes> read_image_file(const std::string& path) {
    // Without O_NONBLOCK opening a FIFO would wait for a writer.
    const UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0) {
        return fail_errno(Code::io, "open image {}", path);
    }
    if (!S_ISREG(status.st_mode)) {
        return fail(Code::invalid, "image {}: not a regular file", path);
    }
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size > kMaxImageFile) {
        return fail(Code::limit, "image {}: {} bytes are more than the {} MiB allowed", path, size,
                    kMaxImageFile >> 20);
    }
    Bytes bytes(size);
    std::size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t count = ::read(fd.get(), bytes.data() + done, bytes.size() - done);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return fail_errno(Code::io, "read image {}", path);
        }
        if (count == 0) {
            return fail(Code::io, "image {}: it became shorter while it was read", path);
        }
        done += static_cast<std::size_t>(count);
    }
    return bytes;
}

Result<BootImage> load_image(std::span<const std::byte> file, std::string_view command_line,
                             std::span<const RegionConfig> memory) {
    if (command_line.size() > kMaxCommandLine || command_line.find('\0') != std::string_view::npos) {
        return fail(Code::invalid, "command line: {} bytes; it may have {} and no zero byte among them",
                    command_line.size(), kMaxCommandLine);
    }
    const std::optional<std::size_t> multiboot = find_multiboot(file);
    if (is_elf(file)) {
        // A multiboot header may put an ELF file where its own program headers do not, so they matter only
        // for PVH.
        auto elf = parse_elf(file);
        if (elf && elf->pvh_entry) {
            return load_pvh(*elf, command_line, memory);
        }
        if (!multiboot) {
            TRY(std::move(elf));
            return fail(
                Code::unsupported,
                "image: an ELF file without a PVH entry note or a multiboot header; link one of them in");
        }
    }
    if (multiboot) {
        return load_multiboot(file, *multiboot, command_line, memory);
    }
    return load_flat(file, command_line, memory);
}

}  // namespace vmm
