// Mapping: an owned mmap. No other type stores a pointer that mmap returned.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "vmm/base/result.hpp"

namespace vmm {

// How anonymous memory is backed. Sizes in bytes.
enum class Backing {
    thp,      // 2 MiB aligned, MADV_HUGEPAGE
    small,    // 4 KiB pages only, MADV_NOHUGEPAGE
    hugetlb,  // MAP_HUGETLB, 2 MiB; fails when the host's pool is too small
};

class Mapping {
  public:
    // Private anonymous memory, zeroed, read-write, not reserved in swap. `size` is rounded up to whole pages
    // of the backing; bytes() is as long as asked for.
    static Result<Mapping> anonymous(std::size_t size, Backing backing);
    // `size` bytes of `fd` from `offset`, shared, read-write.
    static Result<Mapping> shared(int fd, std::size_t size, std::size_t offset = 0);

    Mapping() = default;
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping() { reset(); }

    std::span<std::byte> bytes() const { return {data_, size_}; }
    void reset();

  private:
    Mapping(void* base, std::size_t base_size, std::byte* data, std::size_t size)
        : base_(base), base_size_(base_size), data_(data), size_(size) {}

    void* base_ = nullptr;
    std::size_t base_size_ = 0;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace vmm
