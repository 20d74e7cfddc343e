// Exclusive: something of the host that one copy of a guest at a time may use, such as a disk image. A
// handover gives it away at the source and takes it at the destination, so that no fault makes two users.
#pragma once

#include "vmm/base/clock.hpp"
#include "vmm/base/result.hpp"

namespace vmm {

// Called by the thread that controls the machine.
class Exclusive {
  public:
    virtual ~Exclusive() = default;

    // Before the guest runs. Does nothing when it is held already; fails, saying what it is, when another
    // holds it. The device is paused.
    virtual Result<void> take() = 0;
    // Begins to bring what the guest has written so far to the storage. It may run.
    virtual Result<void> begin_flush() = 0;
    // Waits until it is there: Code::timeout, and it goes on; any other error: something is lost.
    virtual Result<void> wait_flushed(Duration limit) = 0;
    // Others may take it. The device is paused, and what the guest has written is on the storage. After an
    // error it is held still.
    virtual Result<void> give() = 0;
};

}  // namespace vmm
