#include "devices/virtio/console.hpp"

#include <array>

#include "vmm/base/check.hpp"

namespace devices::virtio {

using vmm::Result;

namespace {

// 5.3.2
constexpr unsigned kReceive = 0;
constexpr unsigned kTransmit = 1;
constexpr std::array<std::uint16_t, 2> kQueueSizes{64, 64};
constexpr std::size_t kPieceBytes = 4096;

}  // namespace

std::span<const std::uint16_t> Console::queue_sizes() const {
    return kQueueSizes;
}

Result<void> Console::attach(Transport& transport) {
    transport_ = &transport;
    backend_->attach(*this);
    return {};
}

bool Console::usable(unsigned queue) const {
    return transport_->active() && transport_->queue(queue).state().ready;
}

void Console::process(unsigned queue) {
    if (queue == kTransmit && listener_ != Listener::present) {
        if (auto dropped = drop_output(); !dropped) {
            return transport_->needs_reset(dropped.error());
        }
        return transport_->used(kTransmit);
    }
    if (auto more = transport_->queue(queue).ask_for_notification(); !more) {
        return transport_->needs_reset(more.error());
    }
    backend_->wake();
}

Result<void> Console::drop_output() {
    VirtQueue& queue = transport_->queue(kTransmit);
    do {
        while (const auto chain = TRY(queue.pop())) {
            TRY(queue.push(chain->head, 0));
        }
    } while (TRY(queue.ask_for_notification()));
    delivered_ = 0;
    return {};
}

bool Console::report(Result<bool> result, unsigned queue) {
    if (!result) {
        transport_->needs_reset(result.error());
        return false;
    }
    transport_->used(queue);
    return *result;
}

bool Console::transmit(const std::function<std::size_t(std::span<const std::byte>)>& deliver) {
    bool called = false;
    transport_->locked([&] {
        called =
            usable(kTransmit) && listener_ == Listener::present && report(transmit_some(deliver), kTransmit);
    });
    return called;
}

Result<bool> Console::transmit_some(const std::function<std::size_t(std::span<const std::byte>)>& deliver) {
    VirtQueue& queue = transport_->queue(kTransmit);
    const auto chain = TRY(queue.pop());
    if (!chain) {
        return TRY(queue.ask_for_notification());
    }
    std::array<std::byte, kPieceBytes> piece;
    const std::size_t size = chain->readable.read(transport_->memory(), delivered_, piece);
    const std::size_t taken = size == 0 ? 0 : deliver(std::span{piece}.first(size));
    VERIFY(taken <= size);
    delivered_ += taken;
    if (delivered_ < chain->readable.size()) {
        queue.unpop(1);
    } else {
        delivered_ = 0;
        TRY(queue.push(chain->head, 0));
    }
    return true;
}

bool Console::receive(const std::function<std::size_t(std::span<std::byte>)>& fetch) {
    bool called = false;
    transport_->locked([&] { called = usable(kReceive) && report(receive_some(fetch), kReceive); });
    return called;
}

Result<bool> Console::receive_some(const std::function<std::size_t(std::span<std::byte>)>& fetch) {
    VirtQueue& queue = transport_->queue(kReceive);
    auto chain = TRY(queue.pop());
    if (!chain && TRY(queue.ask_for_notification())) {
        chain = TRY(queue.pop());
    }
    if (!chain) {
        return false;
    }
    if (chain->writable.size() == 0) {
        TRY(queue.push(chain->head, 0));
        return true;
    }
    std::array<std::byte, kPieceBytes> piece;
    const std::size_t room = std::min<std::size_t>(chain->writable.size(), piece.size());
    const std::size_t count = fetch(std::span{piece}.first(room));
    VERIFY(count <= room);
    if (count == 0) {
        queue.unpop(1);
        return true;
    }
    chain->writable.write(transport_->memory(), 0, std::span{piece}.first(count));
    TRY(queue.push(chain->head, static_cast<std::uint32_t>(count)));
    return true;
}

void Console::set_listener(Listener listener) {
    // The back end calls this while it is attached, too, before there is an I/O thread.
    transport_->locked([&] {
        listener_ = listener;
        if (usable(kTransmit)) {
            process(kTransmit);
        }
    });
}

void Console::save(vmm::SnapshotWriter& snapshot, std::uint32_t instance, const MmioState& transport) const {
    snapshot.put(instance, ConsoleState{transport, delivered_});
}

Result<MmioState> Console::restore(vmm::SnapshotReader& snapshot, std::uint32_t instance,
                                   const Check& check) {
    ConsoleState state = TRY(snapshot.take<ConsoleState>(instance));
    TRY(check(state.transport));
    delivered_ = state.delivered;
    return std::move(state.transport);
}

}  // namespace devices::virtio
