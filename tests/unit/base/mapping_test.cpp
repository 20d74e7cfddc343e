#include "vmm/base/mapping.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>

#include "vmm/base/unique_fd.hpp"

using vmm::Backing;
using vmm::Code;
using vmm::Mapping;

namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;

bool all_zero(std::span<const std::byte> bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

TEST_CASE("anonymous memory is zero, as long as asked for, and aligned for huge pages", "[base]") {
    for (const Backing backing : {Backing::thp, Backing::small}) {
        for (const std::size_t size : {std::size_t{1}, std::size_t{4096}, kHuge - 1, kHuge, kHuge + 4096}) {
            CAPTURE(size);
            auto mapping = Mapping::anonymous(size, backing);
            REQUIRE(mapping);
            const std::span<std::byte> bytes = mapping->bytes();
            REQUIRE(bytes.size() == size);
            CHECK(reinterpret_cast<std::uintptr_t>(bytes.data()) % kHuge == 0);
            CHECK(all_zero(bytes));
            bytes.front() = bytes.back() = std::byte{1};
        }
    }
}

TEST_CASE("huge pages from the pool are mapped or refused, never replaced by small ones", "[base]") {
    auto mapping = Mapping::anonymous(kHuge, Backing::hugetlb);
    if (mapping) {
        CHECK(reinterpret_cast<std::uintptr_t>(mapping->bytes().data()) % kHuge == 0);
        CHECK(all_zero(mapping->bytes()));
    } else {
        CHECK(mapping.error().sys_errno() == ENOMEM);
        CHECK(mapping.error().text().find("vm.nr_hugepages") != std::string::npos);
    }
}

TEST_CASE("a size that would wrap when rounded up is refused, not mapped small", "[base]") {
    for (const std::size_t size : {~std::size_t{0}, ~std::size_t{0} - kHuge, ~std::size_t{0} / 2}) {
        CHECK(!Mapping::anonymous(size, Backing::thp));
        CHECK(!Mapping::anonymous(size, Backing::hugetlb));
    }
}

TEST_CASE("moving a mapping leaves nothing behind", "[base]") {
    auto first = Mapping::anonymous(4096, Backing::small);
    auto second = Mapping::anonymous(8192, Backing::small);
    REQUIRE((first && second));
    first->bytes()[0] = std::byte{9};
    *second = std::move(*first);
    CHECK(first->bytes().empty());
    REQUIRE(second->bytes().size() == 4096);
    CHECK(second->bytes()[0] == std::byte{9});
    Mapping third{std::move(*second)};
    CHECK(second->bytes().empty());
    third.reset();
    CHECK(third.bytes().empty());
    third.reset();
}

TEST_CASE("two shared mappings of one file see each other's writes", "[base]") {
    const vmm::UniqueFd file{::memfd_create("test", MFD_CLOEXEC)};
    REQUIRE(file);
    REQUIRE(::ftruncate(file.get(), 8192) == 0);
    auto whole = Mapping::shared(file.get(), 8192);
    auto tail = Mapping::shared(file.get(), 4096, 4096);
    REQUIRE((whole && tail));
    tail->bytes()[5] = std::byte{3};
    CHECK(whole->bytes()[4096 + 5] == std::byte{3});
    CHECK(!Mapping::shared(-1, 4096));
    CHECK(!Mapping::shared(file.get(), 4096, 1));
}
