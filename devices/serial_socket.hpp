// Back end that listens on a Unix socket and serves one client at a time; further ones are closed at once.
#pragma once

#include <sys/types.h>

#include <optional>

#include "devices/serial_backend.hpp"
#include "devices/serial_stream.hpp"

namespace devices {

class SocketBackend final : public SerialBackend {
  public:
    // Makes the socket, mode 0600. One that nobody listens on any more is replaced; one in use is an error.
    static vmm::Result<std::unique_ptr<SerialBackend>> create(vmm::EventLoop& loop, SerialEvents events,
                                                              const std::string& path);
    // Removes the socket, unless somebody has replaced it.
    ~SocketBackend() override;

    void attach(SerialWire& wire) override;
    void wake() override { wake_.wake(); }

  private:
    struct Client {
        StreamOutput output;
        std::optional<StreamInput> input;  // empty once the client has closed its sending side
    };

    SocketBackend(vmm::EventLoop& loop, SerialEvents events, vmm::WakeFd wake, const std::string& path)
        : loop_(loop), events_(std::move(events)), wake_(std::move(wake)), path_(path) {}

    vmm::Result<void> listen();
    void accept_clients();
    vmm::Result<Client> make_client(vmm::UniqueFd fd);
    void drop_client();
    void pump();

    vmm::EventLoop& loop_;
    SerialEvents events_;
    vmm::WakeFd wake_;
    vmm::EventLoop::Watch wake_watch_;
    std::string path_;
    ino_t inode_ = 0;  // of the socket we made; 0: none
    vmm::UniqueFd listener_;
    vmm::EventLoop::Watch listener_watch_;
    std::optional<Client> client_;
    SerialWire* wire_ = nullptr;
};

}  // namespace devices
