#include "vmm/machine/exit_dispatcher.hpp"

#include <array>
#include <catch2/catch.hpp>

#include "tests/unit/kvm/fake_kvm.hpp"

using Catch::Matchers::Contains;

namespace {

class Recorder final : public vmm::BusDevice {
  public:
    void read(std::uint64_t, std::span<std::byte> data) override {
        for (std::byte& byte : data) {
            byte = static_cast<std::byte>(next++);
        }
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
        writes.emplace_back(offset, data.size());
        for (const std::byte byte : data) {
            bytes += static_cast<char>(byte);
        }
    }
    int next = 1;
    std::vector<std::pair<std::uint64_t, std::size_t>> writes;
    std::string bytes;
};

struct DispatcherFixture {
    DispatcherFixture() : vm(fake), vcpu(vm.vcpu()), dispatcher(ports, mmio, requests) {
        REQUIRE(ports.insert(0x3f8, 8, device));
        REQUIRE(mmio.insert(0xd0000000, 4096, device));
    }
    void serve(const vmm::Exit& exit) { dispatcher.serve(*vcpu, exit); }

    FakeKvm fake;
    FakeVm vm;
    std::unique_ptr<vmm::Vcpu> vcpu;
    vmm::Bus ports;
    vmm::Bus mmio;
    vmm::GuestRequests requests;
    Recorder device;
    vmm::ExitDispatcher dispatcher;
};

}  // namespace

TEST_CASE("each element of a string access reaches the device", "[machine]") {
    DispatcherFixture f;
    std::array<std::byte, 6> data{std::byte{'a'}, std::byte{'b'}, std::byte{'c'},
                                  std::byte{'d'}, std::byte{'e'}, std::byte{'f'}};
    f.serve(vmm::PioExit{0x3f9, true, 2, data});
    CHECK(f.device.bytes == "abcdef");
    CHECK(f.device.writes.size() == 3);
    CHECK(f.device.writes[2] == std::pair<std::uint64_t, std::size_t>{1, 2});
    f.serve(vmm::PioExit{0x3f9, false, 2, data});
    CHECK(data[5] == std::byte{6});
}

TEST_CASE("an access that no device answers reads as ones", "[machine]") {
    DispatcherFixture f;
    std::array<std::byte, 4> data{};
    f.serve(vmm::MmioExit{0xd0002000, false, data});
    CHECK(data[0] == std::byte{0xff});
    CHECK(f.mmio.unassigned_accesses() == 1);
}

TEST_CASE("what is no access becomes a request", "[machine]") {
    DispatcherFixture f;
    const auto kind = [&](const vmm::Exit& exit) {
        f.serve(exit);
        CHECK(f.dispatcher.must_stop());
        const auto request = f.requests.take();
        REQUIRE(request);
        return request->kind;
    };
    using Kind = vmm::GuestRequest::Kind;
    using Event = vmm::SystemEventExit::Kind;
    CHECK(kind(vmm::ShutdownExit{}) == Kind::reset);
    CHECK(f.requests.triple_faults() == 1);
    CHECK(kind(vmm::SystemEventExit{Event::power_off, 1}) == Kind::power_off);
    CHECK(kind(vmm::SystemEventExit{Event::reset, 2}) == Kind::reset);
    CHECK(kind(vmm::SystemEventExit{Event::other, 3}) == Kind::crash);
    CHECK(f.requests.triple_faults() == 1);
    CHECK_FALSE(f.dispatcher.must_stop());
    f.serve(vmm::InterruptedExit{});
    CHECK_FALSE(f.dispatcher.must_stop());
    f.serve(vmm::ErrorExit{"KVM internal error 1"});
    CHECK_THAT(f.requests.take()->text, Contains("KVM internal error 1: vcpu=0 rip="));
}

TEST_CASE("the first request counts", "[machine]") {
    vmm::GuestRequests requests;
    int posts = 0;
    requests.on_post([&] { ++posts; });
    requests.exit(7);
    requests.reset();
    CHECK(posts == 1);
    const auto request = requests.take();
    REQUIRE(request);
    CHECK(request->kind == vmm::GuestRequest::Kind::exit);
    CHECK(request->value == 7);
    CHECK_FALSE(requests.take());
}
