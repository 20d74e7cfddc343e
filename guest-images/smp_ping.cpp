#include "smp_ping.hpp"

#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/lapic.hpp"
#include "runtime/splitmix.hpp"

namespace workload {
namespace {

using guest::Fields;

uint64_t letter_of(uint32_t from, uint64_t number) {
    return guest::mix((uint64_t{from} << 56) + number);
}

}  // namespace

void Ping::poll() {
    if (partner_ == nullptr) {
        return;
    }
    const uint64_t got = received();
    const uint64_t due = serves() ? sent_ : sent_ + 1;
    if (got < due) {
        check_patience();
        return;
    }
    if (got > due) {
        guest::fail(Fields()
                        .text("reason", "extra_ipi")
                        .number("cpu", self_->index)
                        .number("want", due)
                        .number("got", got));
    }
    if (got != 0) {
        check_letter(got);
    }
    if (serves()) {
        const uint64_t now = guest::rdtsc();
        const uint64_t trip = now - served_at_;
        shortest_trip_ = got != 0 && trip < shortest_trip_ ? trip : shortest_trip_;
        served_at_ = now;
    }
    answered_at_ = self_->timer_ticks;
    send();
}

void Ping::check_letter(uint64_t number) const {
    const uint64_t want = letter_of(partner_->self_->index, number);
    if (partner_->letter_ != want) {
        guest::fail(Fields()
                        .text("reason", "bad_letter")
                        .number("cpu", self_->index)
                        .number("number", number)
                        .hex("want", want)
                        .hex("got", partner_->letter_));
    }
}

void Ping::check_patience() const {
    if (self_->timer_ticks - answered_at_ > patience_) {
        guest::fail(Fields()
                        .text("reason", "lost_ipi")
                        .number("cpu", self_->index)
                        .number("partner", partner_->self_->index)
                        .number("sent", sent_)
                        .number("received", received())
                        .number("partner_received", partner_->received()));
    }
}

void Ping::send() {
    const uint64_t number = sent_ + 1;
    letter_ = letter_of(self_->index, number);
    sent_ = number;
    guest::send_ipi(partner_->self_->index, VECTOR_IPI);
}

}  // namespace workload
