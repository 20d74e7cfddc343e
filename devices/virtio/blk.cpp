#include "devices/virtio/blk.hpp"

#include <algorithm>

namespace devices::virtio {

using vmm::Result;

namespace {

// 5.2.3
constexpr std::uint64_t kFeatureSizeMax = std::uint64_t{1} << 1;
constexpr std::uint64_t kFeatureSegMax = std::uint64_t{1} << 2;
constexpr std::uint64_t kFeatureReadOnly = std::uint64_t{1} << 5;
constexpr std::uint64_t kFeatureBlkSize = std::uint64_t{1} << 6;
constexpr std::uint64_t kFeatureFlush = std::uint64_t{1} << 9;
constexpr std::uint64_t kFeatureDiscard = std::uint64_t{1} << 13;
constexpr std::uint64_t kFeatureWriteZeroes = std::uint64_t{1} << 14;

constexpr std::array<std::uint16_t, 1> kBlkQueueSizes{256};

// What fallocate(2) says where the file system has no such thing, or not for blocks as small as these.
bool cannot(int result) {
    return result == -EOPNOTSUPP || result == -EINVAL;
}

}  // namespace

Result<std::unique_ptr<Blk>> Blk::create(std::unique_ptr<DiskImage> image, std::string id) {
    std::unique_ptr<DiskRing> ring = TRY(DiskRing::create(image->fd()));
    return std::unique_ptr<Blk>{new Blk{std::move(image), std::move(ring), std::move(id)}};
}

// 5.2.4: struct virtio_blk_config.
Blk::Blk(std::unique_ptr<DiskImage> image, std::unique_ptr<DiskRing> ring, std::string id)
    : image_(std::move(image)), ring_(std::move(ring)), id_(std::move(id)) {
    vmm::store_le(config_.data() + 0, image_->sectors());
    vmm::store_le(config_.data() + 8, kSizeMax);
    vmm::store_le(config_.data() + 12, kSegMax);
    vmm::store_le(config_.data() + 20, static_cast<std::uint32_t>(kSectorBytes));
    vmm::store_le(config_.data() + 34, std::uint16_t{1});  // num_queues
    vmm::store_le(config_.data() + 36, kMaxDiscardSectors);
    vmm::store_le(config_.data() + 40, std::uint32_t{1});  // ranges
    vmm::store_le(config_.data() + 44, std::uint32_t{1});  // discard_sector_alignment
    vmm::store_le(config_.data() + 48, kMaxZeroSectors);
    vmm::store_le(config_.data() + 52, std::uint32_t{1});  // ranges
    config_[56] = std::byte{1};                            // write_zeroes_may_unmap
}

vmm::DeviceIdentity Blk::identity() const {
    return {BlkState::id, 0, {}, image_->sectors() * kSectorBytes, image_->read_only()};
}

std::uint64_t Blk::features() const {
    const std::uint64_t always = kFeatureSizeMax | kFeatureSegMax | kFeatureBlkSize | kFeatureFlush;
    return always | (image_->read_only() ? kFeatureReadOnly : kFeatureDiscard | kFeatureWriteZeroes);
}

std::span<const std::uint16_t> Blk::queue_sizes() const {
    return kBlkQueueSizes;
}

Result<void> Blk::attach(Transport& transport) {
    transport_ = &transport;
    completions_ = TRY(transport.watch(ring_->event_fd(), EPOLLIN, [this] { complete(); }));
    return {};
}

// 5.2.6.2: a driver without FLUSH takes what has been answered for written.
void Blk::accept(std::uint64_t features) {
    write_through_ = (features & kFeatureFlush) == 0;
}

void Blk::process(unsigned) {
    if (!requests_.empty() && requests_.begin()->first < first_valid_) {
        return;
    }
    const auto taken = take_requests();
    ring_->submit();
    if (!taken) {
        return transport_->needs_reset(taken.error());
    }
    transport_->used(0);
}

// No more than there are buffers for: the rest stays in its queue, where it may migrate.
Result<void> Blk::take_requests() {
    const auto take = [this](const Chain& chain) -> Result<void> {
        if (requests_.size() >= transport_->queue(0).state().size) {
            return vmm::fail(vmm::Code::invalid, "more requests in flight than the queue has entries");
        }
        BlkRequest request =
            TRY(decode_request(transport_->memory(), chain, {image_->sectors(), image_->read_only()}));
        if (request.kind == BlkRequest::Kind::write_zeroes && write_through_) {
            request.kind = BlkRequest::Kind::fill;
        }
        waiting_.push_back(next_number_);
        requests_.emplace(next_number_++, std::move(request));
        begin_waiting();
        return {};
    };
    return serve_requests(*transport_, 0, take, [this] { return waiting_.empty(); });
}

void Blk::begin_waiting() {
    while (!waiting_.empty()) {
        const auto request = requests_.find(waiting_.front());
        if (!begin(request->first, request->second)) {
            break;
        }
        request->second.waiting = false;
        waiting_.pop_front();
        answer_if_done(request);
    }
}

bool Blk::begin(std::uint64_t number, BlkRequest& request) {
    using Kind = BlkRequest::Kind;
    DiskRing::Operation operation;
    operation.offset = request.offset;
    operation.size = request.size;
    switch (request.kind) {
        case Kind::read:
        case Kind::write:
        case Kind::fill:
            return begin_transfer(number, request);
        case Kind::flush:
            operation.kind = DiskRing::Operation::Kind::flush;
            break;
        case Kind::discard:
            operation.kind = DiskRing::Operation::Kind::discard;
            break;
        case Kind::write_zeroes:
            operation.kind =
                request.unmap ? DiskRing::Operation::Kind::discard : DiskRing::Operation::Kind::write_zeroes;
            break;
        case Kind::get_id:
        case Kind::failed:
            return true;
    }
    if (request.kind == Kind::flush || request.size != 0) {
        start(number, request, operation, 0);
    }
    return true;
}

bool Blk::begin_transfer(std::uint64_t number, BlkRequest& request) {
    while (request.begun < request.size && request.status == kBlkOk) {
        const auto slot = ring_->take_slot();
        if (!slot) {
            return false;
        }
        DiskRing::Operation operation;
        operation.offset = request.offset + request.begun;
        operation.size = std::min<std::uint64_t>(request.size - request.begun, DiskRing::kSlotBytes);
        operation.slot = *slot;
        if (request.kind != BlkRequest::Kind::read) {
            operation.kind =
                write_through_ ? DiskRing::Operation::Kind::write_through : DiskRing::Operation::Kind::write;
            const std::span<std::byte> data = ring_->slot(*slot).first(operation.size);
            if (request.kind == BlkRequest::Kind::fill) {
                std::fill(data.begin(), data.end(), std::byte{0});
            } else {
                request.chain.readable.read(transport_->memory(), BlkRequest::kHeaderBytes + request.begun,
                                            data);
            }
        }
        start(number, request, operation, request.begun);
        request.begun += operation.size;
    }
    return true;
}

void Blk::start(std::uint64_t number, BlkRequest& request, DiskRing::Operation operation, std::uint64_t at) {
    operation.token = next_number_++;
    ++request.pieces;
    ring_->add(operation);
    pieces_.emplace(operation.token, Piece{number, operation, at});
}

void Blk::complete() {
    ring_->clear_event();
    while (const auto completion = ring_->next()) {
        ended(pieces_.extract(completion->token).mapped(), completion->result);
    }
    // What has left the queue before pause() is carried out in it.
    begin_waiting();
    ring_->submit();
    transport_->used(0);
    if (transport_->active() && transport_->queue(0).state().ready) {
        process(0);
    }
    if (requests_.empty()) {
        transport_->settled();
    }
}

void Blk::ended(const Piece& piece, int result) {
    const auto found = requests_.find(piece.request);
    BlkRequest& request = found->second;
    --request.pieces;
    using Kind = BlkRequest::Kind;
    switch (request.kind) {
        case Kind::read:
        case Kind::write:
        case Kind::fill:
            transferred(piece, request, result);
            break;
        case Kind::discard:
            // A hint; on a disk that cannot, nothing is done.
            request.status = result < 0 && !cannot(result) ? kBlkIoError : kBlkOk;
            break;
        case Kind::write_zeroes:
            if (cannot(result) && found->first >= first_valid_) {
                request.kind = Kind::fill;
                request.waiting = true;
                waiting_.push_back(found->first);
                break;
            }
            request.status = result < 0 ? kBlkIoError : kBlkOk;
            break;
        case Kind::flush:
            request.status = result < 0 || image_->lost() ? kBlkIoError : kBlkOk;
            break;
        case Kind::get_id:
        case Kind::failed:
            break;  // no operation
    }
    answer_if_done(found);
}

void Blk::transferred(const Piece& piece, BlkRequest& request, int result) {
    const DiskRing::Operation& operation = piece.operation;
    if (result <= 0) {  // 0: the image is shorter than it was
        request.status = kBlkIoError;
        ring_->free_slot(operation.slot);
        return;
    }
    const auto count = static_cast<std::size_t>(result);
    if (request.kind == BlkRequest::Kind::read && piece.request >= first_valid_) {
        request.chain.writable.write(transport_->memory(), piece.at,
                                     ring_->slot(operation.slot).subspan(operation.slot_offset, count));
    }
    if (count == operation.size) {
        ring_->free_slot(operation.slot);
        return;
    }
    DiskRing::Operation rest = operation;
    rest.offset += count;
    rest.size -= count;
    rest.slot_offset += count;
    start(piece.request, request, rest, piece.at + count);
    ring_->submit();
}

void Blk::answer_if_done(Requests::iterator request) {
    if (request->second.pieces == 0 && !request->second.waiting) {
        if (request->first >= first_valid_) {
            answer(request->second);
        }
        requests_.erase(request);
    }
}

void Blk::answer(BlkRequest& request) {
    const Segments& writable = request.chain.writable;
    if (request.kind == BlkRequest::Kind::get_id) {
        std::array<std::byte, kBlkIdBytes> name{};
        std::copy_n(std::as_bytes(std::span{id_}).begin(), std::min(id_.size(), name.size()), name.begin());
        const std::size_t room = writable.size() - sizeof request.status;
        writable.write(transport_->memory(), 0, std::span{name}.first(std::min(room, name.size())));
    }
    writable.write(transport_->memory(), writable.size() - sizeof request.status,
                   vmm::bytes_of(request.status));
    if (auto pushed = transport_->queue(0).push(request.chain.head, request.written()); !pushed) {
        transport_->needs_reset(pushed.error());
    }
}

void Blk::reset() {
    queue_stopped(0);
    write_through_ = true;
}

// What the disk has been asked for it does; nobody is told.
void Blk::queue_stopped(unsigned) {
    first_valid_ = next_number_;
    waiting_.clear();
    for (auto request = requests_.begin(); request != requests_.end();) {
        request->second.waiting = false;
        request = request->second.pieces == 0 ? requests_.erase(request) : std::next(request);
    }
}

void Blk::save(vmm::SnapshotWriter& snapshot, std::uint32_t instance, const MmioState& transport) const {
    snapshot.put(instance, BlkState{transport, image_->sectors(), image_->read_only()});
}

Result<MmioState> Blk::restore(vmm::SnapshotReader& snapshot, std::uint32_t instance, const Check& check) {
    BlkState state = TRY(snapshot.take<BlkState>(instance));
    TRY(check(state.transport));
    if (state.sectors != image_->sectors() || state.read_only != image_->read_only()) {
        return vmm::fail(vmm::Code::mismatch, "the guest's disk has {} sectors{}, this one {}{}",
                         state.sectors, state.read_only ? ", read-only" : "", image_->sectors(),
                         image_->read_only() ? ", read-only" : "");
    }
    return std::move(state.transport);
}

}  // namespace devices::virtio
