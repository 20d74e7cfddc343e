#include "devices/virtio/mmio_transport.hpp"

#include "vmm/base/check.hpp"

namespace devices::virtio {

using vmm::Code;
using vmm::Result;

namespace {

constexpr std::uint64_t kTransportFeatures = kFeatureVersion1 | kFeatureIndirectDesc | kFeatureEventIdx;

}  // namespace

MmioTransport::MmioTransport(std::unique_ptr<virtio::Device> device, Place place, vmm::WakeFd interrupt)
    : place_(std::move(place)), interrupt_(std::move(interrupt)), device_(std::move(device)) {
}

Result<std::unique_ptr<MmioTransport>> MmioTransport::create(std::unique_ptr<virtio::Device> device,
                                                             Place place) {
    std::unique_ptr<MmioTransport> transport{
        new MmioTransport{std::move(device), std::move(place), TRY(vmm::WakeFd::create())}};
    TRY(transport->set_up().context(transport->name()));
    return transport;
}

// A device that did not come to rest may still be called, until its watches have ended.
MmioTransport::~MmioTransport() {
    const auto quiet = place_.loop.quiesce();
    device_.reset();
    queues_.clear();
}

vmm::DeviceIdentity MmioTransport::identity() const {
    vmm::DeviceIdentity identity = device_->identity();
    identity.instance = place_.instance;
    identity.id = place_.id;
    return identity;
}

std::string MmioTransport::name() const {
    return fmt::format("{} \"{}\"", device_->identity().state.name, place_.id);
}

Result<void> MmioTransport::set_up() {
    const std::span<const std::uint16_t> sizes = device_->queue_sizes();
    VERIFY(sizes.size() <= MmioState::kMaxQueues);
    for (unsigned index = 0; index < sizes.size(); ++index) {
        queues_.push_back({VirtQueue{place_.memory, sizes[index]}, TRY(vmm::WakeFd::create()), {}});
        Queue& queue = queues_.back();
        queue.watch = TRY(watch(queue.notify.fd(), EPOLLIN, [this, index] { serve(index); }));
    }
    return device_->attach(*this);
}

Result<vmm::EventLoop::Watch> MmioTransport::watch(int fd, std::uint32_t interest,
                                                   std::function<void()> handler) {
    return place_.loop.watch(fd, interest, [this, call = std::move(handler)](std::uint32_t) {
        const std::lock_guard lock{mutex_};
        call();
    });
}

void MmioTransport::locked(const std::function<void()>& call) {
    const std::lock_guard lock{mutex_};
    call();
}

void MmioTransport::serve(unsigned index) {
    Queue& queue = queues_[index];
    queue.notify.clear();
    if (active() && queue.ring.state().ready) {
        device_->process(index);
    }
}

bool MmioTransport::active() const {
    return !paused_ && (state_.status & kStatusDriverOk) != 0 && (state_.status & kStatusNeedsReset) == 0;
}

void MmioTransport::interrupt(std::uint32_t reason) {
    state_.interrupt_status |= reason;
    interrupt_.wake();
}

void MmioTransport::used(unsigned index) {
    const auto wanted = queues_[index].ring.wants_interrupt();
    if (!wanted) {
        needs_reset(wanted.error());
    } else if (*wanted) {
        interrupt(kInterruptUsedBuffer);
    }
}

void MmioTransport::config_changed() {
    ++state_.config_generation;
    interrupt(kInterruptConfigChange);
}

void MmioTransport::host_failed(const vmm::Error& why) {
    place_.report(fmt::format("{}: {}", name(), why.text()));
}

void MmioTransport::needs_reset(const vmm::Error& why) {
    if ((state_.status & kStatusNeedsReset) != 0) {
        return;
    }
    // Once: a guest must not fill the log.
    if (!std::exchange(broken_, true)) {
        place_.report(fmt::format("{}: its driver broke a rule: {}", name(), why.text()));
    }
    state_.status |= kStatusNeedsReset;
    config_changed();
}

// 2.4: everything but what the driver cannot change.
void MmioTransport::start_over() {
    const std::uint32_t generation = state_.config_generation;
    state_ = {};
    state_.config_generation = generation;
    for (Queue& queue : queues_) {
        queue.ring.set_state({});
    }
    device_->reset();
}

std::uint64_t MmioTransport::offered() const {
    return device_->features() | kTransportFeatures;
}

// 2.2: none that was not offered, and none but a driver of version 1.
bool MmioTransport::acceptable(std::uint64_t features) const {
    return (features & ~offered()) == 0 && (features & kFeatureVersion1) != 0;
}

void MmioTransport::accept_features() {
    for (Queue& queue : queues_) {
        queue.ring.set_features(state_.driver_features);
    }
    device_->accept(state_.driver_features);
}

Result<std::uint64_t> MmioTransport::pause(vmm::Duration limit) {
    std::unique_lock lock{mutex_};
    paused_ = true;
    const std::size_t begun = device_->in_flight();
    if (!settled_.wait_for(lock, limit, [&] { return device_->in_flight() == 0; })) {
        const std::size_t left = device_->in_flight();
        lock.unlock();
        resume();
        return vmm::fail(Code::timeout, "{}: {} requests are still with the host after {:.0f} ms", name(),
                         left, vmm::to_ms(limit));
    }
    return begun;
}

void MmioTransport::resume() {
    const std::lock_guard lock{mutex_};
    paused_ = false;
    if (state_.interrupt_status != 0) {
        interrupt_.wake();
    }
    for (const Queue& queue : queues_) {
        queue.notify.wake();
    }
    device_->resumed(std::exchange(how_, Resumed::paused));
}

void MmioTransport::reset() {
    const std::lock_guard lock{mutex_};
    start_over();
    state_.config_generation = 0;
}

void MmioTransport::save(vmm::SnapshotWriter& snapshot) const {
    const std::lock_guard lock{mutex_};
    MmioState state = state_;
    for (const Queue& queue : queues_) {
        state.queues.push_back(queue.ring.state());
    }
    device_->save(snapshot, place_.instance, state);
    how_ = Resumed::saved;
}

Result<void> MmioTransport::restore(vmm::SnapshotReader& snapshot) {
    const std::lock_guard lock{mutex_};
    MmioState state = TRY(
        device_->restore(snapshot, place_.instance, [this](const MmioState& found) { return check(found); }));
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        queues_[i].ring.set_state(state.queues[i]);
    }
    state.queues.clear();
    state_ = std::move(state);
    if ((state_.status & kStatusFeaturesOk) != 0) {
        accept_features();
    }
    how_ = Resumed::restored;
    return {};
}

// Against what this device is; the sizes of the state itself its visit has checked.
Result<void> MmioTransport::check(const MmioState& state) const {
    if (state.queues.size() != queues_.size()) {
        return vmm::fail(Code::mismatch, "{} queues, this device has {}", state.queues.size(),
                         queues_.size());
    }
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        if (state.queues[i].size > queues_[i].ring.max_size()) {
            return vmm::fail(Code::mismatch, "queue {} has {} descriptors, this device takes {}", i,
                             state.queues[i].size, queues_[i].ring.max_size());
        }
    }
    if ((state.status & kStatusFeaturesOk) != 0 && !acceptable(state.driver_features)) {
        return vmm::fail(Code::mismatch, "the driver uses features {:#x}, this device offers {:#x}",
                         state.driver_features, offered());
    }
    return {};
}

}  // namespace devices::virtio
