// What `vmm receive` was told, for its listener and for the processes of its sessions.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "migration/fault.hpp"
#include "tools/vmm/guest_process.hpp"
#include "tools/vmm/link_options.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace tools {

struct ReceiveOptions {
    migration::Address listen;
    std::size_t max_incoming = 1;
    std::size_t queue = 0;  // places of guests that wait for one of those
    std::optional<std::uint64_t> max_memory;
    std::optional<std::uint32_t> max_cpus;
    std::vector<vmm::CpuidMask> cpuid_masks;
    std::string name;  // empty: the guest's own
    bool once = false;
    std::optional<migration::FaultPlan> fault;
    LinkOptions link;
    std::shared_ptr<const migration::TlsContext> tls;  // what link.tls_dir holds
    GuestOptions guest;
};

}  // namespace tools
