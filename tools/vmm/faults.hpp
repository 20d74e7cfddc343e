// Faults: what one side of a migration works with; with --fault, in the hands of a FaultInjector.
#pragma once

#include <memory>
#include <optional>

#include "migration/fault.hpp"

namespace tools {

constexpr const char* kFaultHelp =
    "For tests of a handover: a fault of this side, as KIND@PHASE[:N][=ARG]; docs/faultlab.md has them all";

// Of text, for the option of that side.
inline auto fault_of(migration::Role side) {
    return [side](const std::string& text) { return migration::FaultPlan::parse(text, side); };
}

// What it is made of must outlive it, and it all that it gives.
class Faults {
  public:
    Faults(const std::optional<migration::FaultPlan>& plan, migration::RecordStore& records,
           migration::EventSink& events);

    std::unique_ptr<migration::Transport> wrap(std::unique_ptr<migration::Transport> transport);
    // Once.
    migration::Connector& wrap(migration::Connector& connector);
    migration::RecordStore& records() { return faulty_records_ ? *faulty_records_ : records_; }
    migration::EventSink& events();
    const vmm::Clock& clock() const { return injector_ ? injector_->clock() : vmm::real_clock(); }

  private:
    migration::RecordStore& records_;
    migration::EventSink& events_;
    std::unique_ptr<migration::FaultInjector> injector_;  // none without a plan
    std::unique_ptr<migration::RecordStore> faulty_records_;
    std::unique_ptr<migration::Connector> faulty_connector_;
};

}  // namespace tools
