#include "vmm/machine/machine_state.hpp"

namespace vmm {

namespace {

// Every vCPU's state, taken on its own thread.
Result<std::vector<VcpuState>> save_vcpus(VcpuTeam& team, std::size_t count, const ClockReading& clock) {
    std::vector<VcpuState> states(count);
    auto saved = team.for_each([&](Vcpu& vcpu) -> Result<void> {
        states[vcpu.index()] = TRY(save_vcpu(vcpu, clock).context(fmt::format("vCPU {}", vcpu.index())));
        return {};
    });
    TRY(std::move(saved));
    return states;
}

Result<void> restore_vcpus(VcpuTeam& team, const std::vector<VcpuState>& states,
                           const std::optional<ClockPair>& clocks) {
    return team.for_each([&](Vcpu& vcpu) {
        return restore_vcpu(vcpu, states[vcpu.index()], clocks).context(fmt::format("vCPU {}", vcpu.index()));
    });
}

EntryState entry_of(const BootImage& image) {
    return {image.mode, image.entry, image.rax, image.rbx, image.rsi, image.cr3, image.gdt};
}

}  // namespace

Result<Bytes> save_machine(Machine& machine, VcpuTeam& team, const RunFlags& flags) {
    SnapshotWriter snapshot;
    snapshot.put(0, flags);
    // The clock first: the TSCs are related to it.
    const ClockReading clock = TRY(read_clock(machine.vm(), real_clock()));
    snapshot.put(0, clock.state);
    // The PIT goes on ticking: a tick between these two is in the LAPICs as well as still to come, which an
    // edge may be; the other way round it would be in neither.
    const IrqchipState irqchips = TRY(save_irqchips(machine.vm()));
    const std::vector<VcpuState> vcpus = TRY(save_vcpus(team, machine.vcpus().size(), clock));
    for (std::uint32_t i = 0; i < vcpus.size(); ++i) {
        snapshot.put(i, vcpus[i]);
    }
    snapshot.put(0, irqchips);
    for (const auto& device : machine.devices()) {
        device->save(snapshot);
    }
    return snapshot.finish();
}

Result<RunFlags> restore_machine(Machine& machine, VcpuTeam& team, std::span<const std::byte> snapshot,
                                 std::optional<Duration> elapsed) {
    SnapshotReader reader = TRY(SnapshotReader::parse(snapshot));
    const RunFlags flags = TRY(reader.take<RunFlags>(0));
    ClockPair clocks;
    clocks.saved = TRY(reader.take<ClockState>(0));
    std::vector<VcpuState> vcpus;
    for (std::uint32_t i = 0; i < machine.vcpus().size(); ++i) {
        vcpus.push_back(TRY(reader.take<VcpuState>(i)));
    }
    const IrqchipState irqchips = TRY(reader.take<IrqchipState>(0));
    for (const auto& device : machine.devices()) {
        TRY(device->restore(reader));
    }
    TRY(reader.finish());

    // Clock, vCPUs, irqchips: each relies on the one before (guest_clock.hpp, vm_state.hpp).
    clocks.now = TRY(restore_clock(machine.vm(), clocks.saved, elapsed, real_clock()));
    TRY(restore_vcpus(team, vcpus, clocks));
    TRY(restore_irqchips(machine.vm(), irqchips));
    return flags;
}

Result<PristineState> capture_pristine(Machine& machine, VcpuTeam& team) {
    PristineState pristine;
    const ClockReading clock = TRY(read_clock(machine.vm(), real_clock()));
    pristine.vcpus = TRY(save_vcpus(team, machine.vcpus().size(), clock));
    pristine.irqchips = TRY(save_irqchips(machine.vm()));
    // This host's; a guest that came from another keeps those it came with.
    for (VcpuState& vcpu : pristine.vcpus) {
        std::erase_if(vcpu.msrs, [](const MsrValue& msr) { return describes_host(msr.index); });
    }
    return pristine;
}

Result<void> place_boot_image(Machine& machine) {
    TRY(place(machine.boot_image(), machine.memory()));
    return machine.vcpus().front()->enter_at(entry_of(machine.boot_image()));
}

Result<void> reset_machine(Machine& machine, VcpuTeam& team, const PristineState& pristine) {
    for (const auto& device : machine.devices()) {
        device->reset();
    }
    TRY(restore_vcpus(team, pristine.vcpus, std::nullopt));
    TRY(restore_irqchips(machine.vm(), pristine.irqchips));
    return place_boot_image(machine);
}

}  // namespace vmm
