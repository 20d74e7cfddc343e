#include "vmm/base/mapping.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <limits>

namespace vmm {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t value, std::size_t unit) {
    return (value + unit - 1) / unit * unit;
}

}  // namespace

Result<Mapping> Mapping::anonymous(std::size_t size, Backing backing) {
    // Rounding up must not wrap: a small mapping would pass for a huge one.
    if (size > std::numeric_limits<std::ptrdiff_t>::max() - 2 * kHugePage) {
        return fail(Code::limit, "map {} bytes: too many", size);
    }
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    std::size_t base_size = round_up(size, kHugePage);
    if (backing == Backing::hugetlb) {
        // Without MAP_NORESERVE the pool is checked here, not by a SIGBUS when the guest touches a page.
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
    } else {
        base_size += kHugePage;  // room to align: huge pages need a 2 MiB aligned address
    }
    void* base = ::mmap(nullptr, base_size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (base == MAP_FAILED) {
        return fail_errno(Code::io, "map {} bytes{}", size,
                          backing == Backing::hugetlb ? " of huge pages (see vm.nr_hugepages)" : "");
    }
    auto* data = static_cast<std::byte*>(base);
    if (backing != Backing::hugetlb) {
        const auto address = reinterpret_cast<std::uintptr_t>(base);
        data += round_up(address, kHugePage) - address;
    }
    Mapping mapping{base, base_size, data, size};
    if (backing != Backing::hugetlb && size > 0) {
        // Advice only: a host without THP still runs the guest.
        (void)::madvise(data, round_up(size, kHugePage),
                        backing == Backing::thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    }
    return mapping;
}

Result<Mapping> Mapping::shared(int fd, std::size_t size, std::size_t offset) {
    void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (base == MAP_FAILED) {
        return fail_errno(Code::io, "map {} bytes of descriptor {}", size, fd);
    }
    return Mapping{base, size, static_cast<std::byte*>(base), size};
}

Mapping::Mapping(Mapping&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      base_size_(std::exchange(other.base_size_, 0)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    if (this != &other) {
        reset();
        base_ = std::exchange(other.base_, nullptr);
        base_size_ = std::exchange(other.base_size_, 0);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
    }
    return *this;
}

void Mapping::reset() {
    if (base_ != nullptr) {
        ::munmap(base_, base_size_);
    }
    base_ = nullptr;
    data_ = nullptr;
    base_size_ = size_ = 0;
}

}  // namespace vmm
