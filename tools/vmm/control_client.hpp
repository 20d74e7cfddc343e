// ControlClient: the other end of a guest's control socket, blocking.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "migration/message.hpp"
#include "tools/vmm/line_buffer.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace tools {

class ControlClient {
  public:
    // `name`: of a guest, or the path of its control socket.
    static vmm::Result<ControlClient> connect(const std::string& name);

    int fd() const { return socket_.get(); }
    vmm::Result<void> send(const nlohmann::json& request);
    // The next object: a reply or an event. Code::closed when the guest's process has ended.
    vmm::Result<nlohmann::json> receive(std::optional<vmm::Duration> limit = std::nullopt);
    // An object that has come already; fill() waits for bytes of the next one.
    vmm::Result<std::optional<nlohmann::json>> next();
    vmm::Result<void> fill();

    // A first sign of life: a process that is stopped takes connections and requests all the same, and who
    // waits without limit for its answer waits for ever.
    vmm::Result<void> greet();
    // Sends a request and takes its reply, whatever it says.
    vmm::Result<nlohmann::json> exchange(const nlohmann::json& request,
                                         std::optional<vmm::Duration> limit = std::nullopt);
    // The same; `ok: false` becomes an error in the guest's words.
    vmm::Result<nlohmann::json> call(const nlohmann::json& request,
                                     std::optional<vmm::Duration> limit = std::nullopt);

  private:
    // Reports have a line for each round.
    static constexpr std::size_t kMaxReply = std::size_t{64} << 20;

    ControlClient(vmm::UniqueFd socket, std::string name)
        : socket_(std::move(socket)), name_(std::move(name)) {}

    vmm::UniqueFd socket_;
    std::string name_;
    LineBuffer in_{kMaxReply};
};

// How long a command waits that the control thread answers by itself.
inline constexpr vmm::Duration kPromptReply = std::chrono::seconds{5};

// A reason as another process sent it.
migration::Reason reason_of(const nlohmann::json& reason);
// What kept this client from asking, or from hearing the answer.
migration::Reason reason_of(const vmm::Error& error, const std::string& name);

// The error of a reply whose `ok` is false.
vmm::Error error_of(const nlohmann::json& reply);

// A member of an object that another process sent: null when it is missing, "" when it is not text.
const nlohmann::json& field(const nlohmann::json& object, const char* name);
std::string text_of(const nlohmann::json& object, const char* name);

}  // namespace tools
