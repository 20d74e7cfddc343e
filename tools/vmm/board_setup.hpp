// A machine and its board, put together: the one place that joins vmm and devices.
#pragma once

#include <memory>

#include "devices/board.hpp"
#include "vmm/machine/machine.hpp"

namespace tools {

struct BuiltMachine {
    std::unique_ptr<vmm::Machine> machine;
    devices::Board board;  // the machine owns the devices
};

// `io` serves the back ends and must outlive the machine.
vmm::Result<BuiltMachine> build_machine(const vmm::Kvm& kvm, vmm::MachineConfig config,
                                        devices::BoardConfig board, vmm::EventLoop& io);

}  // namespace tools
