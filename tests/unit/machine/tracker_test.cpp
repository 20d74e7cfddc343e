// What a migration reads must be the union of all who write guest memory.
#include <catch2/catch.hpp>

#include "tests/unit/machine/machine_fixture.hpp"

namespace {

// Armed, with nothing owed.
struct Armed : MachineFixture {
    Armed() : MachineFixture(spin) {
        fake.capabilities[KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2] =
            KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
        REQUIRE(machine->tracker().start());
        vmm::Bitmap first{pages()};
        REQUIRE(machine->tracker().collect(first));
        REQUIRE(machine->tracker().rearm({0, pages()}));
    }
    std::uint64_t pages() { return machine->memory().page_limit(); }
    vmm::Bitmap collect() {
        vmm::Bitmap dirty{pages()};
        REQUIRE(machine->tracker().collect(dirty));
        return dirty;
    }
};

}  // namespace

TEST_CASE("a machine's tracker sees what a vCPU writes", "[machine]") {
    Armed armed;
    armed.fake.guest_writes(0, 5);
    const vmm::Bitmap dirty = armed.collect();
    CHECK(dirty.test(5));
    CHECK(dirty.count() == 1);
}

TEST_CASE("a machine's tracker sees what its devices write", "[machine]") {
    Armed armed;
    REQUIRE(armed.machine->memory().store(vmm::Gpa{6 * vmm::kPageSize}, std::uint64_t{1}));
    const vmm::Bitmap dirty = armed.collect();
    CHECK(dirty.test(6));
    CHECK(dirty.count() == 1);
}
