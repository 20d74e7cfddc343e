#include "vmm/machine/exit_dispatcher.hpp"

#include "vmm/kvm/vcpu.hpp"

namespace vmm {

namespace {

template <typename... F>
struct Overloaded : F... {
    using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

void ExitDispatcher::serve(const Vcpu& vcpu, const Exit& exit) {
    std::visit(Overloaded{
                   [&](const PioExit& pio) {
                       for (std::size_t at = 0; at < pio.data.size(); at += pio.size) {
                           const std::span<std::byte> one = pio.data.subspan(at, pio.size);
                           if (pio.is_write) {
                               ports_.write(pio.port, one);
                           } else {
                               ports_.read(pio.port, one);
                           }
                       }
                   },
                   [&](const MmioExit& mmio) {
                       if (mmio.is_write) {
                           mmio_.write(mmio.address, mmio.data);
                       } else {
                           mmio_.read(mmio.address, mmio.data);
                       }
                   },
                   [&](const ShutdownExit&) { requests_.triple_fault(); },
                   [&](const SystemEventExit& event) {
                       if (event.kind == SystemEventExit::Kind::power_off) {
                           requests_.power_off();
                       } else if (event.kind == SystemEventExit::Kind::reset) {
                           requests_.reset();
                       } else {
                           requests_.crash(fmt::format("system event {} from KVM: {}", event.type,
                                                       vcpu.describe_registers()));
                       }
                   },
                   [](const InterruptedExit&) {},
                   [&](const ErrorExit& error) {
                       requests_.crash(fmt::format("{}: {}", error.text, vcpu.describe_registers()));
                   },
               },
               exit);
}

void ExitDispatcher::failed(const Vcpu& vcpu, const Error& error) {
    requests_.crash(fmt::format("{}: {}", error.text(), vcpu.describe_registers()));
}

}  // namespace vmm
