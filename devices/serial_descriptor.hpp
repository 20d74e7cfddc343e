// Back ends on descriptors that are there from the start: standard input and output, and a file.
#pragma once

#include <optional>

#include "devices/raw_terminal.hpp"
#include "devices/serial_backend.hpp"
#include "devices/serial_stream.hpp"

namespace devices {

class DescriptorBackend final : public SerialBackend {
  public:
    // Descriptors 0 and 1, or others in a test.
    static vmm::Result<std::unique_ptr<SerialBackend>> stdio(vmm::EventLoop& loop, SerialEvents events,
                                                             int in, int out);
    static vmm::Result<std::unique_ptr<SerialBackend>> file(vmm::EventLoop& loop, SerialEvents events,
                                                            const std::string& path);
    ~DescriptorBackend() override;

    void attach(SerialWire& wire) override;
    void wake() override { wake_.wake(); }

  private:
    DescriptorBackend(vmm::EventLoop& loop, SerialEvents events, vmm::WakeFd wake)
        : loop_(loop), events_(std::move(events)), wake_(std::move(wake)) {}
    static vmm::Result<std::unique_ptr<DescriptorBackend>> create(vmm::EventLoop& loop, SerialEvents events);

    void pump();
    // Takes Ctrl-] out of what was typed. The device is locked meanwhile, so the request to quit follows
    // later.
    std::size_t filter(std::span<std::byte> typed);

    vmm::EventLoop& loop_;
    SerialEvents events_;
    vmm::WakeFd wake_;
    vmm::EventLoop::Watch wake_watch_;
    std::unique_ptr<RawTerminal> terminal_;
    std::optional<StreamInput> input_;
    std::optional<StreamOutput> output_;
    SerialWire* wire_ = nullptr;
    bool quit_typed_ = false;
};

}  // namespace devices
