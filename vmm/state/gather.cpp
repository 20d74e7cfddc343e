#include "vmm/state/gather.hpp"

namespace vmm {

void GatheredBytes::put(std::span<const std::byte> bytes) {
    if (bytes.empty()) {
        return;
    }
    size_ += bytes.size();
    if (bytes.size() >= kReferred) {
        parts_.push_back({bytes.data(), bytes.size()});
        return;
    }
    copied_.insert(copied_.end(), bytes.begin(), bytes.end());
    if (parts_.empty() || parts_.back().referred != nullptr) {
        parts_.push_back({nullptr, 0});
    }
    parts_.back().size += bytes.size();
}

std::vector<std::span<const std::byte>> GatheredBytes::parts() const {
    std::vector<std::span<const std::byte>> all;
    std::size_t copied = 0;
    for (const Part& part : parts_) {
        if (part.referred != nullptr) {
            all.emplace_back(part.referred, part.size);
        } else {
            all.push_back(std::span{copied_}.subspan(copied, part.size));
            copied += part.size;
        }
    }
    return all;
}

}  // namespace vmm
