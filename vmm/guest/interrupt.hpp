// How a device reaches the interrupt controllers.
#pragma once

namespace vmm {

class InterruptLine {
  public:
    virtual ~InterruptLine() = default;
    // Level of the line; any thread, with the device's own lock held or not. Setting the same level again is
    // legal.
    virtual void set(bool level) = 0;
};

}  // namespace vmm
