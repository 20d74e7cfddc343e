// A device's state as a snapshot, and back. The device is paused.
#pragma once

#include "vmm/guest/device.hpp"
#include "vmm/state/snapshot.hpp"

namespace tests {

inline vmm::Bytes save(const vmm::Device& device) {
    vmm::SnapshotWriter writer;
    device.save(writer);
    return writer.finish();
}

inline vmm::Result<void> restore(vmm::Device& device, const vmm::Bytes& snapshot) {
    vmm::SnapshotReader reader = TRY(vmm::SnapshotReader::parse(snapshot));
    TRY(device.restore(reader));
    return reader.finish();
}

}  // namespace tests
