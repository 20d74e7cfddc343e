// What a device may ask of the machine that it is part of.
#pragma once

#include <cstdint>

namespace vmm {

// Called on vCPU threads from inside a bus access, with no lock of a device held. Every request only notes
// what is wanted and returns; the thread that controls the machine carries it out.
class MachineControl {
  public:
    virtual ~MachineControl() = default;
    // The guest ended itself with a status.
    virtual void exit(std::uint8_t value) = 0;
    virtual void reset() = 0;
    virtual void power_off() = 0;
};

}  // namespace vmm
