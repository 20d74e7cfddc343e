#include "devices/virtio/console.hpp"

#include <array>
#include <thread>

#include "vmm/base/check.hpp"

namespace devices::virtio {

using vmm::Result;

namespace {

// 5.3.2
constexpr unsigned kConsoleReceive = 0;
constexpr unsigned kConsoleTransmit = 1;
constexpr std::array<std::uint16_t, 2> kConsoleQueueSizes{64, 64};
constexpr std::size_t kPieceBytes = 4096;
constexpr vmm::Duration kLookAgain = std::chrono::milliseconds{2};

}  // namespace

std::span<const std::uint16_t> Console::queue_sizes() const {
    return kConsoleQueueSizes;
}

Result<void> Console::attach(Transport& transport) {
    transport_ = &transport;
    backend_->attach(*this);
    return {};
}

// The lock is the transport's, so there is nothing to be woken by.
bool Console::flush(vmm::Duration limit) {
    const vmm::TimePoint end = vmm::real_clock().now() + limit;
    bool waits = true;
    transport_->locked([&] { flushing_ = true; });
    backend_->wake();
    while (waits && vmm::real_clock().now() < end) {
        std::this_thread::sleep_for(kLookAgain);
        transport_->locked([&] { waits = !output_.empty() && listener_ == Listener::present; });
    }
    bool empty = false;
    transport_->locked([&] {
        flushing_ = false;
        empty = output_.empty();
    });
    return empty;
}

void Console::process(unsigned queue) {
    if (queue == kConsoleReceive) {
        if (const auto asked = transport_->queue(kConsoleReceive).ask_for_notification(); !asked) {
            return transport_->needs_reset(asked.error());
        }
    } else if (const auto taken = serve_requests(*transport_, kConsoleTransmit,
                                                 [this](const Chain& chain) { return take_output(chain); });
               !taken) {
        return transport_->needs_reset(taken.error());
    }
    transport_->used(queue);
    backend_->wake();
}

Result<void> Console::take_output(const Chain& chain) {
    std::array<std::byte, kPieceBytes> piece;
    // No more is kept, and a chain may name the same memory again and again.
    const std::uint64_t size_of_all = chain.readable.size();
    std::uint64_t done = size_of_all - std::min<std::uint64_t>(size_of_all, ConsoleState::kOutputLimit);
    while (const std::size_t size = chain.readable.read(transport_->memory(), done, piece)) {
        done += size;
        for (const std::byte value : std::span{piece}.first(size)) {
            if (output_.room() == 0) {
                output_.pop(1);
            }
            output_.push(value);
        }
    }
    if (listener_ == Listener::none) {
        output_.clear();
    }
    return transport_->queue(kConsoleTransmit).push(chain.head, 0);
}

bool Console::transmit(const std::function<std::size_t(std::span<const std::byte>)>& deliver) {
    bool called = false;
    transport_->locked([&] {
        called = (transport_->active() || flushing_) && listener_ == Listener::present && !output_.empty();
        if (called) {
            const std::span<const std::byte> bytes = output_.front();
            const std::size_t taken = deliver(bytes);
            VERIFY(taken <= bytes.size());
            output_.pop(taken);
        }
    });
    return called;
}

bool Console::receive(const std::function<std::size_t(std::span<std::byte>)>& fetch) {
    bool called = false;
    transport_->locked([&] {
        if (!transport_->active() || !transport_->queue(kConsoleReceive).state().ready) {
            return;
        }
        const auto given = give_input(fetch);
        if (!given) {
            return transport_->needs_reset(given.error());
        }
        called = *given;
        transport_->used(kConsoleReceive);
    });
    return called;
}

// One buffer of the guest. False: there is none; the back end is woken when there is.
Result<bool> Console::give_input(const std::function<std::size_t(std::span<std::byte>)>& fetch) {
    VirtQueue& queue = transport_->queue(kConsoleReceive);
    auto chain = TRY(queue.pop());
    if (!chain && TRY(queue.ask_for_notification())) {
        chain = TRY(queue.pop());
    }
    if (!chain) {
        return false;
    }
    if (chain->writable.size() == 0) {
        return vmm::fail(vmm::Code::invalid, "a receive buffer without room");
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
        if (listener == Listener::none) {
            output_.clear();
        }
    });
}

void Console::save(vmm::SnapshotWriter& snapshot, std::uint32_t instance, const MmioState& transport) const {
    snapshot.put(instance, ConsoleState{transport, output_.copy()});
}

Result<MmioState> Console::restore(vmm::SnapshotReader& snapshot, std::uint32_t instance,
                                   const Check& check) {
    ConsoleState state = TRY(snapshot.take<ConsoleState>(instance));
    TRY(check(state.transport));
    output_.assign(state.output);
    return std::move(state.transport);
}

}  // namespace devices::virtio
