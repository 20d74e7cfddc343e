#pragma once

#include <stdint.h>

#include "runtime/cpus.hpp"

namespace workload {

// Interprocessor interrupts between an even CPU and the odd one after it, strictly in turn, each with a
// letter in memory that must be there when the interrupt is: so every interrupt arrives once.
class Ping {
  public:
    constexpr Ping() = default;

    // `patience`: timer interrupts of this CPU after which an answer is taken for lost.
    void start(guest::Cpu& self, uint64_t patience) {
        self_ = &self;
        patience_ = patience;
    }
    // Before any poll; a CPU without a partner has nothing to do.
    void pair_with(Ping& partner) { partner_ = &partner; }

    // Answers, or serves, when it is this CPU's turn.
    void poll();

    uint64_t sent() const { return sent_; }
    uint64_t received() const { return self_->ipis; }
    // TSC ticks between serving and the answer; UINT64_MAX: none yet.
    uint64_t shortest_trip() const { return shortest_trip_; }
    // While no CPU sends: whether all that was sent has arrived.
    bool settled() const { return partner_ == nullptr || received() == partner_->sent_; }
    guest::Cpu& self() const { return *self_; }

  private:
    bool serves() const { return self_->index % 2 == 0; }
    void check_letter(uint64_t number) const;
    void check_patience() const;
    void send();

    guest::Cpu* self_ = nullptr;
    Ping* partner_ = nullptr;
    uint64_t patience_ = 0;
    volatile uint64_t sent_ = 0;
    volatile uint64_t letter_ = 0;  // from this CPU to the partner
    uint64_t answered_at_ = 0;      // timer interrupts
    uint64_t served_at_ = 0;        // TSC
    uint64_t shortest_trip_ = UINT64_MAX;
};

}  // namespace workload
