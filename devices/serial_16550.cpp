#include "devices/serial_16550.hpp"

#include <array>

#include "vmm/base/check.hpp"

namespace devices {

using namespace uart;

Serial16550::Serial16550(vmm::InterruptLine& line, std::unique_ptr<SerialBackend> backend)
    : line_(line), backend_(std::move(backend)) {
    backend_->attach(*this);
}

bool Serial16550::flush(vmm::Duration limit) {
    std::unique_lock lock{mutex_};
    flushing_ = true;
    backend_->wake();
    delivered_.wait_for(lock, limit, [&] { return output_.empty() || listener_ != Listener::present; });
    flushing_ = false;
    return output_.empty();
}

// What is being delivered is a write that does not block, so the limit is never reached.
vmm::Result<std::uint64_t> Serial16550::pause(vmm::Duration) {
    std::unique_lock lock{mutex_};
    paused_ = true;
    delivered_.wait(lock, [&] { return !delivering_; });
    return {};
}

void Serial16550::resume() {
    const std::lock_guard lock{mutex_};
    paused_ = false;
    update();
    line_.set(line_level_);
    input_refused_ = false;
    backend_->wake();
}

void Serial16550::reset() {
    const std::lock_guard lock{mutex_};
    state_ = {};
}

void Serial16550::save(vmm::SnapshotWriter& snapshot) const {
    const std::lock_guard lock{mutex_};
    Serial16550State state = state_;
    state.output = output_.copy();
    snapshot.put(0, state);
}

vmm::Result<void> Serial16550::restore(vmm::SnapshotReader& snapshot) {
    Serial16550State state = TRY(snapshot.take<Serial16550State>(0));
    const std::lock_guard lock{mutex_};
    output_.assign(state.output);
    state.output.clear();
    state_ = std::move(state);
    // Whether the source counted as ready depends on its listener too. Too many transmit events are legal, so
    // ask the queue alone.
    was_ready_ = output_.room() >= kFifoBytes;
    line_level_ = false;
    return {};
}

bool Serial16550::transmit(const std::function<std::size_t(std::span<const std::byte>)>& deliver) {
    std::unique_lock lock{mutex_};
    if ((paused_ && !flushing_) || listener_ != Listener::present || output_.empty()) {
        return false;
    }
    // The bytes stay where they are meanwhile: vCPUs only append, and drop the oldest only while nobody
    // listens, which changes on this thread alone.
    delivering_ = true;
    const std::span<const std::byte> bytes = output_.front();
    lock.unlock();
    const std::size_t taken = deliver(bytes);
    lock.lock();
    VERIFY(taken <= bytes.size());
    output_.pop(taken);
    delivering_ = false;
    update();
    delivered_.notify_all();
    return true;
}

bool Serial16550::receive(const std::function<std::size_t(std::span<std::byte>)>& fetch) {
    const std::lock_guard lock{mutex_};
    if (!can_receive()) {
        input_refused_ = true;
        return false;
    }
    std::array<std::byte, kFifoBytes> buffer;
    const std::size_t room = state_.receive_capacity() - state_.received.size();
    const std::size_t count = fetch(std::span{buffer}.first(room));
    VERIFY(count <= room);
    state_.received.insert(state_.received.end(), buffer.begin(),
                           buffer.begin() + static_cast<std::ptrdiff_t>(count));
    update();
    return true;
}

void Serial16550::set_listener(Listener listener) {
    const std::lock_guard lock{mutex_};
    listener_ = listener;
    update();
    delivered_.notify_all();
}

bool Serial16550::can_receive() const {
    return !paused_ && !looped() && state_.received.size() < state_.receive_capacity();
}

void Serial16550::receiver_freed() {
    if (input_refused_ && can_receive()) {
        input_refused_ = false;
        backend_->wake();
    }
}

// A driver that sees THRE may write a whole FIFO without looking again.
bool Serial16550::transmitter_ready() const {
    return looped() || listener_ != Listener::present || output_.room() >= kFifoBytes;
}

void Serial16550::update() {
    if (paused_) {
        return;
    }
    if (listener_ == Listener::none) {
        output_.clear();
    }
    const bool ready = transmitter_ready();
    if (ready && !was_ready_) {
        state_.transmit_event = true;
    }
    was_ready_ = ready;
    // OUT2 gates the interrupt on a PC's board, and loop-back disconnects that pin.
    const bool level = interrupt_cause() != kIirNone && (state_.mcr & kMcrOut2) != 0 && !looped();
    if (level != line_level_) {
        line_level_ = level;
        line_.set(level);
    }
}

void Serial16550::send(std::byte value) {
    if (output_.room() == 0) {
        if (listener_ == Listener::present) {
            return;  // written although THRE was 0: as on the chip, the character is overwritten
        }
        output_.pop(1);
    }
    output_.push(value);
    if (output_.size() == 1 && listener_ == Listener::present) {
        backend_->wake();
    }
}

}  // namespace devices
