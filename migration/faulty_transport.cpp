#include "migration/faulty_transport.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

std::size_t size_of(std::span<const iovec> parts) {
    std::size_t size = 0;
    for (const iovec& part : parts) {
        size += part.iov_len;
    }
    return size;
}

vmm::Bytes joined(std::span<const iovec> parts) {
    vmm::Bytes bytes;
    bytes.reserve(size_of(parts));
    for (const iovec& part : parts) {
        const auto* data = static_cast<const std::byte*>(part.iov_base);
        bytes.insert(bytes.end(), data, data + part.iov_len);
    }
    return bytes;
}

std::byte& byte_at(std::span<const iovec> parts, std::uint64_t at) {
    std::size_t i = 0;
    for (; at >= parts[i].iov_len; ++i) {
        at -= parts[i].iov_len;
    }
    return static_cast<std::byte*>(parts[i].iov_base)[at];
}

}  // namespace

FaultyTransport::~FaultyTransport() {
    if (late_sender_.joinable()) {
        late_sender_.join();
    }
}

// What comes before the byte passes.
Result<void> FaultyTransport::end_at(const Strike& strike, std::span<const iovec> parts,
                                     const Deadline& deadline, Operation operation,
                                     std::atomic<std::uint64_t>& count) {
    std::vector<iovec> passed;
    for (std::uint64_t left = strike.byte; left > 0;) {
        iovec part = parts[passed.size()];
        part.iov_len = std::min<std::size_t>(part.iov_len, left);
        left -= part.iov_len;
        passed.push_back(part);
    }
    if (!passed.empty()) {
        TRY((inner_.get()->*operation)(passed, deadline));
        count += strike.byte;
    }
    if (strike.kind == Strike::Kind::timeout) {
        return fail(Code::timeout, "the connection stalls");
    }
    inner_->shutdown();
    return fail(Code::closed, "the connection was cut");
}

Result<void> FaultyTransport::send(std::span<const iovec> parts, const Deadline& deadline) {
    if (late_) {
        return fail(Code::closed, "the connection was lost");
    }
    const std::size_t size = size_of(parts);
    const Strike strike = point_.strike(FaultPoint::Direction::send, sent_, size);
    silent_ = silent_ || strike.kind == Strike::Kind::silence;
    if (silent_) {
        return {};
    }
    TRY(send_struck(strike, parts, deadline));
    if (strike.kind != Strike::Kind::reorder && !held_back_.empty()) {
        const vmm::Bytes held = std::exchange(held_back_, {});
        const iovec part = part_of(held);
        TRY(inner_->send({&part, 1}, deadline));
    }
    sent_ += size;
    point_.sent();
    return {};
}

Result<void> FaultyTransport::send_struck(const Strike& strike, std::span<const iovec> parts,
                                          const Deadline& deadline) {
    switch (strike.kind) {
        case Strike::Kind::cut:
        case Strike::Kind::timeout:
            return end_at(strike, parts, deadline, &Transport::send, sent_);
        case Strike::Kind::corrupt: {
            // The frame may lie in guest memory, which is not to change.
            vmm::Bytes copy = joined(parts);
            copy[strike.byte] ^= std::byte{1};
            const iovec part = part_of(copy);
            return inner_->send({&part, 1}, deadline);
        }
        case Strike::Kind::delay:
            std::this_thread::sleep_for(strike.time);
            break;
        case Strike::Kind::duplicate:
            TRY(inner_->send(parts, deadline));
            break;
        case Strike::Kind::reorder:
            held_back_ = joined(parts);
            return {};
        case Strike::Kind::late:
            return send_late(joined(parts), strike.time);
        case Strike::Kind::silence:
        case Strike::Kind::none:
            break;
    }
    return inner_->send(parts, deadline);
}

// As a network that delivers what its sender has given up: neither shutdown() nor abort() reaches it any
// more.
Result<void> FaultyTransport::send_late(vmm::Bytes frame, vmm::Duration time) {
    late_ = true;
    late_sender_ = std::thread{[this, frame = std::move(frame), time] {
        std::this_thread::sleep_for(time);
        const iovec part = part_of(frame);
        (void)inner_->send({&part, 1}, {});
        inner_->shutdown();
    }};
    return fail(Code::closed, "the connection was lost");
}

Result<void> FaultyTransport::receive(std::span<const iovec> parts, const Deadline& deadline) {
    if (late_) {
        return fail(Code::closed, "the connection was lost");
    }
    const std::size_t size = size_of(parts);
    const Strike strike = point_.strike(FaultPoint::Direction::receive, received_, size);
    if (strike.kind == Strike::Kind::cut || strike.kind == Strike::Kind::timeout) {
        return end_at(strike, parts, deadline, &Transport::receive, received_);
    }
    TRY(inner_->receive(parts, deadline));
    if (strike.kind == Strike::Kind::corrupt) {
        byte_at(parts, strike.byte) ^= std::byte{1};
    }
    received_ += size;
    return {};
}

void FaultyTransport::shutdown() {
    if (!late_) {
        inner_->shutdown();
    }
}

void FaultyTransport::abort() {
    if (!late_) {
        inner_->abort();
    }
}

}  // namespace migration
