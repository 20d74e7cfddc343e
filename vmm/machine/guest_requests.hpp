// GuestRequests: what the guest asked of its machine (end, reset) and nobody has carried out yet.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "vmm/guest/machine_control.hpp"

namespace vmm {

struct GuestRequest {
    enum class Kind { exit, power_off, reset, crash };

    Kind kind = Kind::crash;
    std::uint8_t value = 0;  // of exit
    std::string text;        // of crash
};

// Written by vCPU threads, read by whoever controls the machine.
class GuestRequests final : public MachineControl {
  public:
    void exit(std::uint8_t value) override { post({GuestRequest::Kind::exit, value, {}}); }
    void reset() override { post({GuestRequest::Kind::reset, 0, {}}); }
    void power_off() override { post({GuestRequest::Kind::power_off, 0, {}}); }
    // A vCPU shut down, which resets a PC.
    void triple_fault() {
        triple_faults_.fetch_add(1, std::memory_order_relaxed);
        reset();
    }
    // The guest cannot go on: a KVM_RUN that failed, an error of KVM.
    void crash(std::string text) { post({GuestRequest::Kind::crash, 0, std::move(text)}); }

    // A vCPU that sees this does not enter the guest again.
    bool pending() const { return pending_.load(std::memory_order_acquire); }
    // The oldest request, once; nothing is pending afterwards. While no vCPU runs.
    std::optional<GuestRequest> take();
    std::uint64_t triple_faults() const { return triple_faults_.load(std::memory_order_relaxed); }
    // Called on the thread that posts, without a lock held. Before the first vCPU runs.
    void on_post(std::function<void()> call) { on_post_ = std::move(call); }

  private:
    void post(GuestRequest request);

    std::mutex mutex_;
    std::optional<GuestRequest> request_;
    std::atomic<bool> pending_ = false;
    std::atomic<std::uint64_t> triple_faults_ = 0;
    std::function<void()> on_post_;
};

}  // namespace vmm
