#include "vmm/kvm/dirty_log.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/kvm/fake_kvm.hpp"

namespace {

constexpr std::uint64_t kLogPages = 130;  // two words and two bits

struct DirtyLogFixture {
    explicit DirtyLogFixture(int manual) {
        fake.capabilities[KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2] = manual;
        vm.emplace(fake, kLogPages);
        log.emplace(*vm->vm, vm->memory);
    }
    vmm::Bitmap collect() {
        vmm::Bitmap dirty{vm->memory.page_limit()};
        REQUIRE(log->collect(dirty));
        return dirty;
    }
    bool kernel_has(std::uint64_t page) { return (fake.slots[0].bits[page / 64] >> (page % 64) & 1) != 0; }

    FakeKvm fake;
    std::optional<FakeVm> vm;
    std::optional<vmm::KvmDirtyLog> log;
};

constexpr int kManual = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
constexpr int kInitiallySet = kManual | KVM_DIRTY_LOG_INITIALLY_SET;

}  // namespace

TEST_CASE("initially set: the first rearm arms every page without a collect", "[kvm]") {
    DirtyLogFixture f{kInitiallySet};
    REQUIRE(f.log->start());
    REQUIRE(f.log->rearm({0, kLogPages}));
    CHECK(f.collect().count() == 0);
    f.fake.guest_writes(0, 129);
    const vmm::Bitmap dirty = f.collect();
    CHECK(dirty.count() == 1);
    CHECK(dirty.test(129));
}

TEST_CASE("manual: a page that was never handed out is not cleared", "[kvm]") {
    DirtyLogFixture f{GENERATE(kManual, kInitiallySet)};
    REQUIRE(f.log->start());
    REQUIRE(f.log->rearm({0, kLogPages}));
    f.fake.guest_writes(0, 3);
    CHECK(f.collect().test(3));
    f.fake.guest_writes(0, 4);  // after the collect
    f.fake.guest_writes(0, 70);
    REQUIRE(f.log->rearm({0, 64}));
    CHECK_FALSE(f.kernel_has(3));
    CHECK(f.kernel_has(4));
    CHECK(f.kernel_has(70));
    const vmm::Bitmap dirty = f.collect();
    CHECK(dirty.count() == 2);
    CHECK(dirty.test(4));
    CHECK(dirty.test(70));
}

TEST_CASE("manual: rearmed pages are forgotten, so a second rearm clears nothing", "[kvm]") {
    DirtyLogFixture f{kInitiallySet};
    REQUIRE(f.log->start());
    REQUIRE(f.log->rearm({0, kLogPages}));
    const std::size_t clears = f.fake.clears.size();
    f.fake.guest_writes(0, 1);
    REQUIRE(f.log->rearm({0, kLogPages}));
    CHECK(f.fake.clears.size() == clears);
    CHECK(f.kernel_has(1));
}

TEST_CASE("manual: a page not rearmed is handed out again", "[kvm]") {
    DirtyLogFixture f{kManual};
    REQUIRE(f.log->start());
    CHECK(f.collect().count() == 0);
    f.fake.guest_writes(0, 9);
    CHECK(f.collect().test(9));
    CHECK(f.collect().test(9));
}

TEST_CASE("manual: a failed clear leaves the page collected", "[kvm]") {
    DirtyLogFixture f{kManual};
    REQUIRE(f.log->start());
    f.fake.guest_writes(0, 9);
    (void)f.collect();
    f.fake.failing[KVM_CLEAR_DIRTY_LOG] = ENOMEM;
    CHECK_FALSE(f.log->rearm({0, 64}));
    f.fake.failing.clear();
    REQUIRE(f.log->rearm({0, 64}));
    CHECK_FALSE(f.kernel_has(9));
}

TEST_CASE("manual: the tail of a slot that is no multiple of 64 pages", "[kvm]") {
    DirtyLogFixture f{kInitiallySet};
    REQUIRE(f.log->start());
    REQUIRE(f.log->rearm({128, 2}));
    CHECK_FALSE(f.kernel_has(128));
    CHECK_FALSE(f.kernel_has(129));
    CHECK(f.kernel_has(127));
    CHECK(f.fake.clears.at(0).num_pages == 2);
}

TEST_CASE("plain: collect clears, rearm asks nothing of KVM", "[kvm]") {
    DirtyLogFixture f{0};
    REQUIRE(f.log->start());
    f.fake.guest_writes(0, 64);
    CHECK(f.collect().test(64));
    REQUIRE(f.log->rearm({64, 64}));
    CHECK(f.fake.clears.empty());
    CHECK(f.collect().count() == 0);
}

TEST_CASE("collect adds to what is there", "[kvm]") {
    DirtyLogFixture f{0};
    REQUIRE(f.log->start());
    f.fake.guest_writes(0, 5);
    vmm::Bitmap dirty{f.vm->memory.page_limit()};
    dirty.set(100);
    REQUIRE(f.log->collect(dirty));
    CHECK(dirty.count() == 2);
}

TEST_CASE("the log is off before start and after stop", "[kvm]") {
    DirtyLogFixture f{kInitiallySet};
    CHECK_FALSE(f.fake.slots[0].logging());
    REQUIRE(f.log->start());
    CHECK(f.fake.slots[0].logging());
    CHECK(f.fake.slots[0].config.userspace_addr != 0);
    REQUIRE(f.log->stop());
    CHECK_FALSE(f.fake.slots[0].logging());
}
