#include "vmm/machine/machine.hpp"

namespace vmm {

Machine::Machine(MachineConfig config, GuestMemory memory, std::unique_ptr<KvmVm> vm)
    : config_(std::move(config)),
      memory_(std::move(memory)),
      vm_(std::move(vm)),
      log_(*vm_, memory_),
      tracker_({&log_, &memory_.device_writes()}) {
}

Result<std::unique_ptr<Machine>> Machine::create(const Kvm& kvm, MachineConfig config) {
    const Capabilities& capabilities = kvm.capabilities();
    if (config.vcpus < 1 || config.vcpus > MachineConfig::kMaxVcpus ||
        config.vcpus > capabilities.max_vcpus) {
        return fail(Code::invalid, "{} vCPUs: between 1 and {} are possible here", config.vcpus,
                    std::min(MachineConfig::kMaxVcpus, capabilities.max_vcpus));
    }
    if (config.ram_bytes == 0 || config.ram_bytes % kPageSize != 0) {
        return fail(Code::invalid, "{} bytes of memory: must be a multiple of 4096 and not 0",
                    config.ram_bytes);
    }
    if (config.cpuid.entries.empty()) {
        config.cpuid = make_guest_cpuid(TRY(kvm.supported_cpuid()), config.vcpus, capabilities.tsc_deadline);
    }
    GuestMemory memory = TRY(GuestMemory::create(pc_memory_map(config.ram_bytes), config.backing));
    std::unique_ptr<KvmVm> vm = TRY(KvmVm::create(kvm, &memory));
    std::unique_ptr<Machine> machine{new Machine{std::move(config), std::move(memory), std::move(vm)}};
    TRY(machine->add_vcpus());
    return machine;
}

Result<void> Machine::add_vcpus() {
    for (std::uint32_t index = 0; index < config_.vcpus; ++index) {
        vcpus_.push_back(TRY(Vcpu::create(*vm_, index, config_.cpuid, config_.tsc_khz)));
    }
    config_.tsc_khz = vcpus_.front()->tsc_khz();
    return {};
}

}  // namespace vmm
