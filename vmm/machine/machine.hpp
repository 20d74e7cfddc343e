// Machine: the parts of one guest. What they do together, and when, is in lifecycle.hpp.
#pragma once

#include <memory>
#include <vector>

#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/exclusive.hpp"
#include "vmm/kvm/dirty_log.hpp"
#include "vmm/kvm/vcpu.hpp"
#include "vmm/machine/boot_image.hpp"
#include "vmm/machine/config.hpp"
#include "vmm/machine/guest_requests.hpp"

namespace vmm {

// Everything slow happens in create() (memory, slots, vCPUs): nothing of it in a pause. Built by one thread;
// devices are added before the first vCPU runs.
class Machine {
  public:
    static Result<std::unique_ptr<Machine>> create(const Kvm& kvm, MachineConfig config);

    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    // As given, with the CPUID table and the TSC frequency that the guest really has: what travels.
    const MachineConfig& config() const { return config_; }

    GuestMemory& memory() { return memory_; }
    Bus& ports() { return ports_; }
    Bus& mmio() { return mmio_; }
    InterruptLine& interrupt(std::uint32_t gsi) { return vm_->interrupt(gsi); }
    // For devices that end, reset or power off the machine.
    GuestRequests& requests() { return requests_; }
    MachineControl& control() { return requests_; }

    // A device is added in the state that Device::pause() leaves; Device::resume() comes before the first
    // vCPU runs. Devices are paused, saved and restored in the order of adding, resumed too.
    void add_device(std::unique_ptr<Device> device) { devices_.push_back(std::move(device)); }
    std::span<const std::unique_ptr<Device>> devices() const { return devices_; }
    // Belongs to one of the devices.
    void add_exclusive(Exclusive& exclusive) { exclusives_.push_back(&exclusive); }
    std::span<Exclusive* const> exclusives() const { return exclusives_; }

    // What a reset puts into memory again. Given before the first vCPU runs, or by a migration before it
    // starts.
    void set_boot_image(BootImage image) { boot_image_ = std::move(image); }
    const BootImage& boot_image() const { return boot_image_; }

    // Union of KVM's log and our own writes: what a migration reads.
    DirtyTracker& tracker() { return tracker_; }

    KvmVm& vm() { return *vm_; }
    std::span<const std::unique_ptr<Vcpu>> vcpus() const { return vcpus_; }

  private:
    Machine(MachineConfig config, GuestMemory memory, std::unique_ptr<KvmVm> vm);
    Result<void> add_vcpus();

    MachineConfig config_;
    GuestMemory memory_;
    std::unique_ptr<KvmVm> vm_;
    std::vector<std::unique_ptr<Vcpu>> vcpus_;
    KvmDirtyLog log_;
    UnionTracker tracker_;
    Bus ports_;
    Bus mmio_;
    GuestRequests requests_;
    BootImage boot_image_;
    std::vector<std::unique_ptr<Device>> devices_;
    std::vector<Exclusive*> exclusives_;
};

}  // namespace vmm
