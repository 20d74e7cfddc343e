#include "tools/vmm/event_queue.hpp"

namespace tools {

void EventQueue::on(const migration::Event& event) {
    bool wake = false;
    {
        const std::lock_guard lock{mutex_};
        const auto* entered = std::get_if<migration::SourceEntered>(&event.what);
        const auto* decided = std::get_if<migration::Decided>(&event.what);
        if ((decided != nullptr && decided->verdict.action == migration::Action::switch_over) ||
            (entered != nullptr && entered->phase == migration::SourcePhase::pause)) {
            in_pause_ = true;
        } else if (const auto* reached = std::get_if<migration::Reached>(&event.what)) {
            in_pause_ = reached->moment != migration::Moment::running_received;
        } else if (std::holds_alternative<migration::Ended>(event.what) ||
                   std::holds_alternative<migration::Warned>(event.what)) {
            in_pause_ = false;
        }
        queue_.push_back(event);
        wake = !in_pause_ && !announced_;
        announced_ = announced_ || wake;
    }
    if (wake) {
        loop_.post(ready_);
    }
    if (next_ != nullptr) {
        next_->on(event);
    }
}

std::vector<migration::Event> EventQueue::take() {
    const std::lock_guard lock{mutex_};
    announced_ = false;
    return std::exchange(queue_, {});
}

}  // namespace tools
