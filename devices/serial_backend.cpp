#include "devices/serial_backend.hpp"

#include <unistd.h>

#include "devices/serial_descriptor.hpp"
#include "devices/serial_socket.hpp"

namespace devices {

using vmm::Result;

namespace {

class NullBackend final : public SerialBackend {
  public:
    void attach(SerialWire& wire) override { wire.set_listener(SerialWire::Listener::none); }
    void wake() override {}
};

}  // namespace

Result<SerialConfig> parse_serial(std::string_view text) {
    if (text == "stdio") {
        return SerialConfig{SerialConfig::Kind::stdio, {}};
    }
    if (text == "null") {
        return SerialConfig{SerialConfig::Kind::null, {}};
    }
    const std::size_t colon = text.find(':');
    const std::string_view kind = text.substr(0, colon);
    if (colon == std::string_view::npos || (kind != "file" && kind != "unix")) {
        return vmm::fail(vmm::Code::invalid,
                         "\"{}\" is not a back end; use stdio, null, file:PATH or unix:PATH", text);
    }
    const std::string_view path = text.substr(colon + 1);
    if (path.empty() || path.find('\0') != std::string_view::npos) {
        return vmm::fail(vmm::Code::invalid, "\"{}\" has no path; use {}:PATH", text, kind);
    }
    return SerialConfig{kind == "file" ? SerialConfig::Kind::file : SerialConfig::Kind::socket,
                        std::string{path}};
}

Result<std::unique_ptr<SerialBackend>> make_serial_backend(const SerialConfig& config, vmm::EventLoop& loop,
                                                           SerialEvents events) {
    switch (config.kind) {
        case SerialConfig::Kind::stdio:
            return DescriptorBackend::stdio(loop, std::move(events), STDIN_FILENO, STDOUT_FILENO);
        case SerialConfig::Kind::file:
            return DescriptorBackend::file(loop, std::move(events), config.path);
        case SerialConfig::Kind::socket:
            return SocketBackend::create(loop, std::move(events), config.path);
        case SerialConfig::Kind::null:
            break;
    }
    return std::make_unique<NullBackend>();
}

}  // namespace devices
