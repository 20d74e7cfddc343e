#include "devices/byte_queue.hpp"

#include <algorithm>

#include "vmm/base/check.hpp"

namespace devices {

void ByteQueue::push(std::byte value) {
    VERIFY(room() > 0);
    ring_[(head_ + size_) % ring_.size()] = value;
    ++size_;
}

std::span<const std::byte> ByteQueue::front() const {
    return std::span{ring_}.subspan(head_, std::min(size_, ring_.size() - head_));
}

void ByteQueue::pop(std::size_t count) {
    VERIFY(count <= size_);
    head_ = (head_ + count) % ring_.size();
    size_ -= count;
}

vmm::Bytes ByteQueue::copy() const {
    const std::span<const std::byte> first = front();
    vmm::Bytes all{first.begin(), first.end()};
    all.insert(all.end(), ring_.begin(), ring_.begin() + static_cast<std::ptrdiff_t>(size_ - first.size()));
    return all;
}

void ByteQueue::assign(std::span<const std::byte> bytes) {
    VERIFY(bytes.size() <= ring_.size());
    std::copy(bytes.begin(), bytes.end(), ring_.begin());
    head_ = 0;
    size_ = bytes.size();
}

}  // namespace devices
