#include "devices/virtio/net.hpp"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>

namespace devices::virtio {

using vmm::Code;
using vmm::Result;

namespace {

// 5.1.3
constexpr std::uint64_t kCsum = std::uint64_t{1} << 0;
constexpr std::uint64_t kGuestCsum = std::uint64_t{1} << 1;
constexpr std::uint64_t kMac = std::uint64_t{1} << 5;
constexpr std::uint64_t kGuestTso4 = std::uint64_t{1} << 7;
constexpr std::uint64_t kGuestTso6 = std::uint64_t{1} << 8;
constexpr std::uint64_t kHostTso4 = std::uint64_t{1} << 11;
constexpr std::uint64_t kHostTso6 = std::uint64_t{1} << 12;
constexpr std::uint64_t kMrgRxbuf = std::uint64_t{1} << 15;
constexpr std::uint64_t kLinkStatus = std::uint64_t{1} << 16;
constexpr std::uint64_t kCtrlVq = std::uint64_t{1} << 17;
constexpr std::uint64_t kGuestAnnounce = std::uint64_t{1} << 21;

// 5.1.2
constexpr unsigned kNetReceive = 0;
constexpr unsigned kNetTransmit = 1;
constexpr unsigned kControl = 2;
constexpr std::array<std::uint16_t, 3> kNetQueueSizes{256, 256, 64};

// 5.1.4: the configuration is the address, then the status.
constexpr std::size_t kStatusAt = 6;
constexpr std::uint16_t kLinkUp = 1;
constexpr std::uint16_t kAnnounce = 2;

constexpr std::size_t kGsoTypeAt = 1;  // 5.1.6, in the header
constexpr std::size_t kNumBuffersAt = 10;
// 5.1.6.5: class and command in front, an acknowledgement behind.
constexpr std::uint8_t kAnnounceClass = 3;
constexpr std::uint8_t kAnnounceAck = 0;
constexpr std::uint8_t kControlOk = 0;
constexpr std::uint8_t kControlError = 1;

// One wake of the tap serves so many frames, then others get the I/O thread.
constexpr int kFramesAtOnce = 64;

constexpr unsigned kAnnouncements = 5;
constexpr long kAnnounceEvery_ns = 100'000'000;

// RFC 903, in an Ethernet frame: "who has my hardware address", which bridges learn from and nobody answers.
std::array<std::byte, Tap::kHeaderBytes + 60> rarp_request(const MacAddress& mac) {
    std::array<std::byte, Tap::kHeaderBytes + 60> frame{};
    std::byte* ethernet = frame.data() + Tap::kHeaderBytes;
    std::fill_n(ethernet, mac.size(), std::byte{0xff});
    const std::span address = std::as_bytes(std::span{mac});
    std::copy(address.begin(), address.end(), ethernet + 6);
    constexpr std::array<std::uint8_t, 10> kHead{0x80, 0x35,         // type
                                                 0,    1,    8, 0,   // hardware Ethernet, protocol IPv4
                                                 6,    4,    0, 3};  // their lengths, request reverse
    std::copy_n(std::as_bytes(std::span{kHead}).begin(), kHead.size(), ethernet + 12);
    std::copy(address.begin(), address.end(), ethernet + 22);  // sender
    std::copy(address.begin(), address.end(), ethernet + 32);  // target
    return frame;
}

}  // namespace

Result<std::unique_ptr<Net>> Net::create(Tap tap, const MacAddress& mac) {
    vmm::UniqueFd timer{::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
    if (!timer) {
        return vmm::fail_errno(Code::io, "timerfd_create");
    }
    return std::unique_ptr<Net>{new Net{std::move(tap), std::move(timer), mac}};
}

Net::Net(Tap tap, vmm::UniqueFd timer, const MacAddress& mac)
    : tap_(std::move(tap)), timer_(std::move(timer)) {
    write_mac(mac);
    set_announce(false);
}

void Net::write_mac(const MacAddress& mac) {
    mac_ = mac;
    std::copy_n(std::as_bytes(std::span{mac}).begin(), mac.size(), config_.begin());
}

void Net::set_announce(bool on) {
    announce_ = on;
    vmm::store_le(config_.data() + kStatusAt,
                  static_cast<std::uint16_t>((tap_failed_ ? 0U : kLinkUp) | (on ? kAnnounce : 0U)));
}

std::uint64_t Net::features() const {
    return kCsum | kGuestCsum | kMac | kGuestTso4 | kGuestTso6 | kHostTso4 | kHostTso6 | kMrgRxbuf |
           kLinkStatus | kCtrlVq | kGuestAnnounce;
}

std::span<const std::uint16_t> Net::queue_sizes() const {
    return kNetQueueSizes;
}

Result<void> Net::attach(Transport& transport) {
    transport_ = &transport;
    // Silent until the driver has given a buffer.
    tap_watch_ = TRY(transport.watch(tap_.fd(), 0, [this] { on_tap(); }));
    timer_watch_ = TRY(transport.watch(timer_.get(), EPOLLIN, [this] { announce_from_host(); }));
    return {};
}

void Net::accept(std::uint64_t features) {
    features_ = features;
    const bool checksum = (features & kGuestCsum) != 0;
    const Tap::Offload offload{checksum, checksum && (features & kGuestTso4) != 0,
                               checksum && (features & kGuestTso6) != 0};
    // It takes a lock that the whole host shares, and a guest may reset its device in a loop.
    if (!(offload == offload_)) {
        offload_ = offload;
        tap_.set_offload(offload);
    }
}

void Net::process(unsigned queue) {
    Result<void> served;
    switch (queue) {
        case kNetReceive:
            tap_watch_.set_interest(tap_failed_ ? 0U : std::uint32_t{EPOLLIN});
            served = receive();
            break;
        case kNetTransmit:
            served =
                serve_requests(*transport_, queue, [this](const Chain& chain) { return transmit(chain); });
            break;
        default:
            served =
                serve_requests(*transport_, queue, [this](const Chain& chain) { return control(chain); });
            break;
    }
    if (!served) {
        return transport_->needs_reset(served.error());
    }
    transport_->used(queue);
}

void Net::on_tap() {
    if (!transport_->active() || !transport_->queue(kNetReceive).state().ready) {
        tap_watch_.set_interest(0);  // until process() is called again
        return;
    }
    if (auto served = receive(); !served) {
        return transport_->needs_reset(served.error());
    }
    transport_->used(kNetReceive);
}

void Net::drop_stale() {
    constexpr int kMost = 4096;  // more than a tap holds
    for (int frames = 0; frames < kMost; ++frames) {
        const auto size = tap_.read(received_);
        if (!size || !*size) {
            break;
        }
    }
    stale_ = false;
}

Result<void> Net::receive() {
    if (stale_) {
        drop_stale();
    }
    for (int frames = 0; frames < kFramesAtOnce && !tap_failed_; ++frames) {
        if (received_size_ == 0 && !fetch()) {
            return {};
        }
        if (!TRY(deliver())) {
            tap_watch_.set_interest(0);
            return {};
        }
        received_size_ = 0;
    }
    return {};
}

// False: there is no frame now.
bool Net::fetch() {
    const auto size = tap_.read(received_);
    if (!size) {
        // The interface was taken away. The guest sees that the link is down; no other tap takes its place.
        tap_failed_ = true;
        tap_watch_.set_interest(0);
        set_announce(announce_);
        transport_->config_changed();
        transport_->host_failed(size.error());
        return false;
    }
    if (!*size) {
        return false;
    }
    if ((features_ & kGuestCsum) == 0) {
        // 5.1.6.4: nothing that the driver does not know. A frame from before a reset may still have it.
        if (received_[kGsoTypeAt] != std::byte{0}) {
            return false;
        }
        std::fill_n(received_.begin(), kNumBuffersAt, std::byte{0});
    }
    received_size_ = **size;
    return true;
}

// With MRG_RXBUF a frame may take several buffers; without, one that is too small loses it (5.1.6.3.2).
Result<bool> Net::gather_buffers() {
    VirtQueue& queue = transport_->queue(kNetReceive);
    const bool several = (features_ & kMrgRxbuf) != 0;
    buffers_.clear();
    std::size_t room = 0;
    while (room < received_size_ && (several || buffers_.empty())) {
        auto chain = TRY(queue.pop());
        if (!chain && TRY(queue.ask_for_notification())) {
            chain = TRY(queue.pop());
        }
        if (!chain) {
            queue.unpop(static_cast<std::uint16_t>(buffers_.size()));
            return false;
        }
        const std::size_t size = std::min<std::size_t>(chain->writable.size(), received_size_ - room);
        if (size == 0) {
            return vmm::fail(Code::invalid, "a receive buffer without room");
        }
        room += size;
        buffers_.push_back({std::move(*chain), size});
    }
    return true;
}

Result<bool> Net::deliver() {
    if (!TRY(gather_buffers())) {
        return false;
    }
    VirtQueue& queue = transport_->queue(kNetReceive);
    vmm::store_le(received_.data() + kNumBuffersAt, static_cast<std::uint16_t>(buffers_.size()));
    std::size_t done = 0;
    for (const Buffer& buffer : buffers_) {
        buffer.chain.writable.write(transport_->memory(), 0, std::span{received_}.subspan(done, buffer.size));
        done += buffer.size;
    }
    if (done < received_size_) {
        queue.unpop(1);
        return true;
    }
    for (const Buffer& buffer : buffers_) {
        TRY(queue.push(buffer.chain.head, static_cast<std::uint32_t>(buffer.size)));
    }
    return true;
}

Result<void> Net::transmit(const Chain& chain) {
    const std::size_t size = chain.readable.read(transport_->memory(), 0, sent_);
    if (size == chain.readable.size()) {
        tap_.write(std::span{sent_}.first(size));
    }
    return transport_->queue(kNetTransmit).push(chain.head, 0);
}

Result<void> Net::control(const Chain& chain) {
    const std::array<std::uint8_t, 1> answer{obey(chain)};
    const std::size_t written =
        chain.writable.write(transport_->memory(), 0, std::as_bytes(std::span{answer}));
    return transport_->queue(kControl).push(chain.head, static_cast<std::uint32_t>(written));
}

std::uint8_t Net::obey(const Chain& chain) {
    std::array<std::byte, 2> command{};
    if (chain.readable.read(transport_->memory(), 0, command) < command.size() ||
        command[0] != std::byte{kAnnounceClass} || command[1] != std::byte{kAnnounceAck}) {
        return kControlError;
    }
    set_announce(false);
    return kControlOk;
}

void Net::reset() {
    accept(0);
    set_announce(false);
    received_size_ = 0;
}

void Net::resumed(Resumed how) {
    if (how == Resumed::paused) {
        return;
    }
    stale_ = how == Resumed::restored;
    announcements_left_ = kAnnouncements;
    itimerspec soon{};
    soon.it_value.tv_nsec = 1;
    soon.it_interval.tv_nsec = kAnnounceEvery_ns;
    (void)::timerfd_settime(timer_.get(), 0, &soon, nullptr);
    if (transport_->active() && (features_ & kGuestAnnounce) != 0) {
        set_announce(true);
        transport_->config_changed();
    }
}

void Net::announce_from_host() {
    std::uint64_t expirations = 0;
    if (::read(timer_.get(), &expirations, sizeof expirations) < 0) {
        return;
    }
    if (transport_->active()) {
        tap_.write(rarp_request(mac_));
    }
    if (--announcements_left_ == 0) {
        const itimerspec off{};
        (void)::timerfd_settime(timer_.get(), 0, &off, nullptr);
    }
}

void Net::save(vmm::SnapshotWriter& snapshot, std::uint32_t instance, const MmioState& transport) const {
    snapshot.put(instance, NetState{transport, mac_, announce_});
}

Result<MmioState> Net::restore(vmm::SnapshotReader& snapshot, std::uint32_t instance, const Check& check) {
    NetState state = TRY(snapshot.take<NetState>(instance));
    TRY(check(state.transport));
    write_mac(state.mac);
    set_announce(state.announce);
    return std::move(state.transport);
}

}  // namespace devices::virtio
