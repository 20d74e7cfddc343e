#include "vmm/machine/guest_requests.hpp"

#include <utility>

namespace vmm {

void GuestRequests::post(GuestRequest request) {
    {
        const std::lock_guard lock{mutex_};
        if (request_) {
            return;
        }
        request_ = std::move(request);
        pending_.store(true, std::memory_order_release);
    }
    if (on_post_) {
        on_post_();
    }
}

std::optional<GuestRequest> GuestRequests::take() {
    const std::lock_guard lock{mutex_};
    pending_.store(false, std::memory_order_release);
    return std::exchange(request_, std::nullopt);
}

}  // namespace vmm
