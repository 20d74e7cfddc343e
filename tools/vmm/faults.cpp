#include "tools/vmm/faults.hpp"

#include "tools/vmm/log.hpp"

namespace tools {

Faults::Faults(const std::optional<migration::FaultPlan>& plan, migration::RecordStore& records,
               migration::EventSink& events)
    : records_(records), events_(events) {
    if (plan) {
        injector_ = std::make_unique<migration::FaultInjector>(
            *plan, events, [](const std::string& what) { log_line("fault: {}", what); });
        faulty_records_ = injector_->wrap(records);
    }
}

std::unique_ptr<migration::Transport> Faults::wrap(std::unique_ptr<migration::Transport> transport) {
    return injector_ ? injector_->wrap(std::move(transport)) : std::move(transport);
}

migration::Connector& Faults::wrap(migration::Connector& connector) {
    if (!injector_) {
        return connector;
    }
    faulty_connector_ = injector_->wrap(connector);
    return *faulty_connector_;
}

migration::EventSink& Faults::events() {
    return injector_ ? static_cast<migration::EventSink&>(*injector_) : events_;
}

}  // namespace tools
