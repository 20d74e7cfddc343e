// Device: what every device of a machine must do. All pure virtual, so nothing is silently migratable.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/base/clock.hpp"
#include "vmm/base/result.hpp"
#include "vmm/state/snapshot.hpp"

namespace vmm {

struct DeviceIdentity {
    StateId state;               // name and versions of its section in a snapshot
    std::uint32_t instance = 0;  // tells devices of one kind apart
    std::string id = {};         // the user's name for it; empty where there is only one
    std::uint64_t bytes = 0;     // of a disk
    bool read_only = false;      // of a disk
};

// How devices came to rest in a pause.
struct Drain {
    std::uint64_t requests = 0;  // that had been begun and were finished in it
    Duration time{};             // that all devices together took
};

// A device is made paused: resume() comes before the first vCPU runs.
//
// Called by the thread that controls the machine, never by two at once. A device has one mutex of its own,
// because vCPU threads and the I/O thread call its other interfaces meanwhile.
class Device {
  public:
    virtual ~Device() = default;

    virtual DeviceIdentity identity() const = 0;
    // vCPUs are stopped. On return the device neither touches guest memory nor raises a line nor does host
    // I/O: what it has begun is finished, which takes at most `limit`; the value is how many requests that
    // were. After an error the device goes on as before.
    virtual Result<std::uint64_t> pause(Duration limit) = 0;
    // Undoes pause(), before the vCPUs run; raises again each line that its state says is up, because an
    // interrupt in flight may have been lost (a spurious one is legal).
    virtual void resume() = 0;
    // Power-on state. The machine is paused.
    virtual void reset() = 0;
    // The modelled device, not our implementation of it. The machine is paused; nothing changes by saving.
    virtual void save(SnapshotWriter& snapshot) const = 0;
    // Takes its section and checks all of it before anything is changed. The machine is paused; restore
    // touches no other device and raises no line (resume does).
    virtual Result<void> restore(SnapshotReader& snapshot) = 0;
};

}  // namespace vmm
