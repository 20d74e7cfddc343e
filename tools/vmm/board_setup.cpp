#include "tools/vmm/board_setup.hpp"

namespace tools {

using vmm::Result;

namespace {

class NoLine final : public vmm::InterruptLine {
  public:
    void set(bool) override {}
};

}  // namespace

Result<BuiltMachine> build_machine(const vmm::Kvm& kvm, vmm::MachineConfig config, devices::BoardConfig board,
                                   vmm::EventLoop& io) {
    const std::vector<vmm::RegionConfig> memory = vmm::pc_memory_map(config.ram_bytes);
    BuiltMachine built;
    built.machine = TRY(vmm::Machine::create(kvm, std::move(config)));
    vmm::Machine& machine = *built.machine;
    built.board = TRY(devices::build_board(
        std::move(board),
        {machine.ports(), [&machine](unsigned gsi) -> vmm::InterruptLine& { return machine.interrupt(gsi); },
         [&machine](std::unique_ptr<vmm::Device> device) { machine.add_device(std::move(device)); },
         machine.control(), memory, vmm::real_clock(), io}));
    return built;
}

Result<std::vector<vmm::DeviceIdentity>> board_identities() {
    const std::unique_ptr<vmm::EventLoop> io = TRY(vmm::EventLoop::create());
    vmm::Bus ports;
    NoLine line;
    vmm::GuestRequests requests;
    std::vector<std::unique_ptr<vmm::Device>> devices;
    TRY(devices::build_board(
        {}, {ports,
             [&line](unsigned) -> vmm::InterruptLine& { return line; },
             [&devices](std::unique_ptr<vmm::Device> device) { devices.push_back(std::move(device)); },
             requests,
             {},
             vmm::real_clock(),
             *io}));
    std::vector<vmm::DeviceIdentity> identities;
    for (const auto& device : devices) {
        identities.push_back(device->identity());
    }
    return identities;
}

}  // namespace tools
