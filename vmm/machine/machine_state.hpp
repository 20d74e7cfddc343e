// The machine as bytes, and the machine as it is after power-on. The order of things is here and in
// vcpu_state.hpp.
#pragma once

#include <optional>

#include "vmm/kvm/vcpu_state.hpp"
#include "vmm/kvm/vm_state.hpp"
#include "vmm/machine/vcpu_team.hpp"

namespace vmm {

// What belongs to no device.
struct RunFlags {
    static constexpr StateId id{"machine", 1, 1};

    bool running = false;  // what the user wants: a paused guest arrives paused
    bool reset_pending =
        false;  // a reset was asked for when the machine stopped: whoever resumes carries it out

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("running", self.running);
        v.field("reset_pending", self.reset_pending);
    }
};

// vCPUs are parked, devices paused. Changes nothing.
Result<Bytes> save_machine(Machine& machine, VcpuTeam& team, const RunFlags& flags);

// vCPUs are parked, devices paused. Decodes and checks everything, devices included, before KVM is touched.
// After a failure the machine is of no use. `elapsed`: how long the guest stood still, where CLOCK_REALTIME
// cannot tell.
Result<RunFlags> restore_machine(Machine& machine, VcpuTeam& team, std::span<const std::byte> snapshot,
                                 std::optional<Duration> elapsed);

// vCPUs and irqchips just after creation: what a reset goes back to.
struct PristineState {
    IrqchipState irqchips;
    std::vector<VcpuState> vcpus;
};
Result<PristineState> capture_pristine(Machine& machine, VcpuTeam& team);

// Writes the boot image into memory and sets vCPU 0, in its state after reset, to the entry. vCPUs are
// parked.
Result<void> place_boot_image(Machine& machine);

// Power-on state: devices, irqchips and vCPUs reset, the boot image placed, vCPU 0 at its entry. Clocks go
// on. vCPUs are parked, devices paused.
Result<void> reset_machine(Machine& machine, VcpuTeam& team, const PristineState& pristine);

}  // namespace vmm
