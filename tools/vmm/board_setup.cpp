#include "tools/vmm/board_setup.hpp"

namespace tools {

vmm::Result<BuiltMachine> build_machine(const vmm::Kvm& kvm, vmm::MachineConfig config,
                                        devices::BoardConfig board, vmm::EventLoop& io) {
    BuiltMachine built;
    built.machine = TRY(vmm::Machine::create(kvm, std::move(config)));
    vmm::Machine& machine = *built.machine;
    built.board = TRY(devices::build_board(
        std::move(board),
        {machine.ports(), machine.mmio(),
         [&machine](unsigned gsi) -> vmm::InterruptLine& { return machine.interrupt(gsi); },
         [&machine](unsigned gsi, int event_fd) { return machine.vm().attach_interrupt(gsi, event_fd); },
         [&machine](vmm::Gpa gpa, std::uint32_t value, int event_fd) {
             return machine.vm().attach_doorbell(gpa, value, event_fd);
         },
         [&machine](std::unique_ptr<vmm::Device> device) { machine.add_device(std::move(device)); },
         [&machine](vmm::Exclusive& exclusive) { machine.add_exclusive(exclusive); }, machine.control(),
         machine.memory(), vmm::real_clock(), io}));
    return built;
}

}  // namespace tools
