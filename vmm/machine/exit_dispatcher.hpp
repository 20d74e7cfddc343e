// What becomes of an exit: accesses go to the buses, the rest becomes a request to the machine.
#pragma once

#include "vmm/guest/bus.hpp"
#include "vmm/kvm/exit.hpp"
#include "vmm/machine/guest_requests.hpp"

namespace vmm {

class Vcpu;

// Called on vCPU threads, several at a time.
class ExitDispatcher {
  public:
    ExitDispatcher(Bus& ports, Bus& mmio, GuestRequests& requests)
        : ports_(ports), mmio_(mmio), requests_(requests) {}

    // Serves all of it: each element of a string access too.
    void serve(const Vcpu& vcpu, const Exit& exit);
    // KVM_RUN failed.
    void failed(const Vcpu& vcpu, const Error& error);
    // Somebody asked for the end or a reset: the guest must not be entered again.
    bool must_stop() const { return requests_.pending(); }

  private:
    Bus& ports_;
    Bus& mmio_;
    GuestRequests& requests_;
};

}  // namespace vmm
