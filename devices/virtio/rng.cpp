#include "devices/virtio/rng.hpp"

#include <sys/random.h>

#include <array>

#include "vmm/base/check.hpp"

namespace devices::virtio {

using vmm::Result;

namespace {

constexpr std::array<std::uint16_t, 1> kRngQueueSizes{64};
// 5.4.6.1: less than was asked for is legal, so that a request is short work.
constexpr std::size_t kMaxBytes = 4096;

}  // namespace

std::span<const std::uint16_t> Rng::queue_sizes() const {
    return kRngQueueSizes;
}

Result<void> Rng::attach(Transport& transport) {
    transport_ = &transport;
    return {};
}

void Rng::process(unsigned) {
    if (auto served = serve_requests(*transport_, 0, [this](const Chain& chain) { return serve(chain); });
        !served) {
        transport_->needs_reset(served.error());
        return;
    }
    transport_->used(0);
}

Result<void> Rng::serve(const Chain& chain) {
    std::array<std::byte, kMaxBytes> entropy;
    // At most 256 bytes come whole, whatever signals (getrandom(2)).
    const ssize_t count = ::getrandom(entropy.data(), entropy.size(), 0);
    VERIFY(count > 0);
    const std::size_t written = chain.writable.write(
        transport_->memory(), 0, std::span{entropy}.first(static_cast<std::size_t>(count)));
    return transport_->queue(0).push(chain.head, static_cast<std::uint32_t>(written));
}

void Rng::save(vmm::SnapshotWriter& snapshot, std::uint32_t instance, const MmioState& transport) const {
    snapshot.put(instance, RngState{transport});
}

Result<MmioState> Rng::restore(vmm::SnapshotReader& snapshot, std::uint32_t instance, const Check& check) {
    RngState state = TRY(snapshot.take<RngState>(instance));
    TRY(check(state.transport));
    return std::move(state.transport);
}

}  // namespace devices::virtio
