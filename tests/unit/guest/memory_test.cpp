#include "vmm/guest/memory.hpp"

#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <csignal>

using vmm::Backing;
using vmm::Bitmap;
using vmm::Bytes;
using vmm::Code;
using vmm::Gpa;
using vmm::GuestMemory;
using vmm::PageRange;
using vmm::RegionConfig;

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

GuestMemory create(std::vector<RegionConfig> regions) {
    auto memory = GuestMemory::create(regions, Backing::small);
    REQUIRE(memory);
    return std::move(*memory);
}

// Two regions that touch, and a third behind a hole.
GuestMemory three_regions() {
    return create({{Gpa{0}, kMiB}, {Gpa{kMiB}, kMiB}, {Gpa{4 * kMiB}, kMiB}});
}

std::vector<std::uint64_t> collected(GuestMemory& memory) {
    Bitmap dirty{memory.page_limit()};
    REQUIRE(memory.device_writes().collect(dirty));
    std::vector<std::uint64_t> pages;
    dirty.for_each_run(0, dirty.size(), [&](std::size_t first, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            pages.push_back(first + i);
        }
    });
    return pages;
}

}  // namespace

TEST_CASE("the PC memory map has its hole from 3 to 4 GiB", "[guest]") {
    const auto map = [](std::uint64_t bytes) {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> regions;
        for (const RegionConfig& region : vmm::pc_memory_map(bytes)) {
            regions.emplace_back(region.start.value, region.size);
        }
        return regions;
    };
    using Map = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
    CHECK(map(4096) == Map{{0, 4096}});
    CHECK(map(3 * kGiB - 4096) == Map{{0, 3 * kGiB - 4096}});
    CHECK(map(3 * kGiB) == Map{{0, 3 * kGiB}});
    CHECK(map(3 * kGiB + 4096) == Map{{0, 3 * kGiB}, {4 * kGiB, 4096}});
    CHECK(map(8 * kGiB) == Map{{0, 3 * kGiB}, {4 * kGiB, 5 * kGiB}});
    CHECK(!GuestMemory::create(vmm::pc_memory_map(0), Backing::small));
}

TEST_CASE("a region that is empty, crooked, overlapping or too high is refused", "[guest]") {
    const auto refused = [](std::vector<RegionConfig> regions) {
        const auto memory = GuestMemory::create(regions, Backing::small);
        return !memory && memory.error().code() == Code::invalid;
    };
    CHECK(refused({}));
    CHECK(refused({{Gpa{0}, 0}}));
    CHECK(refused({{Gpa{0}, 4095}}));
    CHECK(refused({{Gpa{4096}, kMiB}}));
    CHECK(refused({{Gpa{0}, kMiB}, {Gpa{kMiB - 256 * 1024}, kMiB}}));
    CHECK(refused({{Gpa{kMiB}, kMiB}, {Gpa{0}, kMiB}}));
    CHECK(refused({{Gpa{0}, kMiB}, {Gpa{~std::uint64_t{0} - kMiB + 1}, kMiB}}));
    CHECK(refused({{Gpa{0}, ~std::uint64_t{4095}}}));
}

TEST_CASE("frame numbers count the hole, RAM does not", "[guest]") {
    const GuestMemory memory = three_regions();
    CHECK(memory.page_limit() == 5 * 256);
    CHECK(memory.total_pages() == 3 * 256);
    REQUIRE(memory.regions().size() == 3);
    CHECK(memory.regions()[2].pages() == PageRange{4 * 256, 256});
}

TEST_CASE("memory is read where it was written, up to the last byte of a region", "[guest]") {
    GuestMemory memory = three_regions();
    REQUIRE(memory.store<std::uint32_t>(Gpa{4 * kMiB}, 0x11223344));
    REQUIRE(memory.store<std::uint32_t>(Gpa{5 * kMiB - 4}, 0x55667788));
    CHECK(memory.load<std::uint32_t>(Gpa{4 * kMiB}).value() == 0x11223344);
    CHECK(memory.load<std::uint16_t>(Gpa{4 * kMiB + 2}).value() == 0x1122);
    CHECK(memory.load<std::uint64_t>(Gpa{5 * kMiB - 8}).value() == 0x5566778800000000);
    CHECK(memory.load<std::uint8_t>(Gpa{0}).value() == 0);
}

TEST_CASE("an access outside of RAM, or across the end of a region, fails and changes nothing", "[guest]") {
    GuestMemory memory = three_regions();
    REQUIRE(memory.device_writes().start());
    for (const std::uint64_t gpa :
         {2 * kMiB, 3 * kMiB, 4 * kMiB - 4, 5 * kMiB - 3, 5 * kMiB, kMiB - 2, 2 * kMiB - 2, ~std::uint64_t{0},
          ~std::uint64_t{0} - 3, std::uint64_t{1} << 63}) {
        CAPTURE(gpa);
        const auto loaded = memory.load<std::uint32_t>(Gpa{gpa});
        REQUIRE(!loaded);
        CHECK(loaded.error().code() == Code::invalid);
        CHECK(!memory.store<std::uint32_t>(Gpa{gpa}, 0xffffffff));
    }
    Bytes more_than_all(6 * kMiB);
    CHECK(!memory.read(Gpa{0}, more_than_all));
    CHECK(collected(memory).empty());
    CHECK(memory.load<std::uint32_t>(Gpa{5 * kMiB - 4}).value() == 0);
}

TEST_CASE("an access of no bytes touches nothing, and marks nothing", "[guest]") {
    GuestMemory memory = three_regions();
    REQUIRE(memory.device_writes().start());
    CHECK(memory.read(Gpa{0}, {}));
    CHECK(memory.write(Gpa{0}, {}));
    CHECK(memory.write(Gpa{kMiB}, {}));
    CHECK(!memory.write(Gpa{3 * kMiB}, {}));
    CHECK(collected(memory).empty());
}

TEST_CASE("a write marks each page that it touches", "[guest]") {
    GuestMemory memory = three_regions();
    REQUIRE(memory.device_writes().start());
    REQUIRE(memory.store<std::uint8_t>(Gpa{4095}, 1));
    CHECK(collected(memory) == std::vector<std::uint64_t>{0});
    REQUIRE(memory.store<std::uint16_t>(Gpa{2 * 4096 - 1}, 1));
    CHECK(collected(memory) == std::vector<std::uint64_t>{1, 2});
    REQUIRE(memory.write(Gpa{4 * kMiB + 4096}, Bytes(2 * 4096)));
    CHECK(collected(memory) == std::vector<std::uint64_t>{4 * 256 + 1, 4 * 256 + 2});
    REQUIRE(memory.store_ordered(Gpa{kMiB + 2}, std::uint16_t{1}));
    CHECK(collected(memory) == std::vector<std::uint64_t>{256});
    REQUIRE(memory.load<std::uint8_t>(Gpa{0}));
    CHECK(collected(memory).empty());
}

namespace {

// Memory that cannot be read: whoever does is held in the handler, which looks at what is marked and then
// makes it readable.
class Unreadable {
  public:
    explicit Unreadable(GuestMemory& memory) : marked_(memory.page_limit()) {
        memory_ = &memory;
        self_ = this;
        bytes_ =
            static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        REQUIRE(bytes_ != MAP_FAILED);
        struct sigaction action {};
        action.sa_handler = [](int) {
            // Nothing that a signal handler may not do: the bitmap is there already.
            self_->read_ = memory_->device_writes().collect(self_->marked_).has_value();
            (void)::mprotect(bytes_, kBytes, PROT_READ);
        };
        REQUIRE(::sigaction(SIGSEGV, &action, &before_) == 0);
    }
    ~Unreadable() {
        (void)::sigaction(SIGSEGV, &before_, nullptr);
        (void)::munmap(bytes_, kBytes);
    }
    std::span<const std::byte> bytes() const { return {bytes_, kBytes}; }
    // How many pages were marked when it was read; nothing when it was not.
    std::optional<std::size_t> marked_when_read() const {
        return read_ ? std::optional{marked_.count()} : std::nullopt;
    }

  private:
    static constexpr std::size_t kBytes = vmm::kPageSize;
    static inline GuestMemory* memory_ = nullptr;
    static inline std::byte* bytes_ = nullptr;
    static inline Unreadable* self_ = nullptr;
    Bitmap marked_;
    bool read_ = false;
    struct sigaction before_ {};
};

}  // namespace

TEST_CASE("a write is marked when it has landed, not before", "[guest]") {
    // Else a migration may take the mark, then read what was there before, and never look again.
    GuestMemory memory = three_regions();
    REQUIRE(memory.device_writes().start());
    const Unreadable source{memory};
    REQUIRE(memory.write(Gpa{4096}, source.bytes()));
    CHECK(source.marked_when_read() == std::size_t{0});
    CHECK(collected(memory) == std::vector<std::uint64_t>{1});
}

TEST_CASE("whole pages are RAM only when all of them are, in one region", "[guest]") {
    GuestMemory memory = three_regions();
    REQUIRE(memory.device_writes().start());
    CHECK(memory.contains({0, 256}));
    CHECK(memory.contains({4 * 256 + 255, 1}));
    CHECK(!memory.contains({255, 2}));
    CHECK(!memory.contains({512, 1}));
    CHECK(!memory.contains({4 * 256 - 1, 2}));
    CHECK(!memory.contains({5 * 256, 1}));
    CHECK(!memory.contains({0, 0}));
    CHECK(!memory.contains({0, ~std::uint64_t{0}}));
    CHECK(!memory.contains({~std::uint64_t{0}, 1}));
    // 2^52 pages are 2^64 bytes: shifted to bytes, such a count must not become a small one.
    CHECK(!memory.contains({1, std::uint64_t{1} << 52}));

    const auto pages = memory.pages({4 * 256 + 1, 2});
    REQUIRE(pages);
    CHECK(pages->size() == 2 * 4096);
    (*pages)[7] = std::byte{42};
    CHECK(memory.load<std::uint8_t>(Gpa{4 * kMiB + 4096 + 7}).value() == 42);
    CHECK(collected(memory).empty());
}

TEST_CASE("a discarded page reads as zero and is owed", "[guest]") {
    GuestMemory memory = three_regions();
    REQUIRE(memory.write(Gpa{0}, Bytes(3 * 4096, std::byte{7})));
    REQUIRE(memory.device_writes().start());
    REQUIRE(memory.discard({1, 1}));
    CHECK(memory.load<std::uint8_t>(Gpa{4095}).value() == 7);
    CHECK(memory.load<std::uint64_t>(Gpa{4096}).value() == 0);
    CHECK(memory.load<std::uint8_t>(Gpa{2 * 4096}).value() == 7);
    CHECK(collected(memory) == std::vector<std::uint64_t>{1});
    CHECK(!memory.discard({512, 1}));
    CHECK(!memory.discard({255, 2}));
}
