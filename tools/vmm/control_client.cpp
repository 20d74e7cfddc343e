#include "tools/vmm/control_client.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>

#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/parse.hpp"
#include "tools/vmm/places.hpp"
#include "tools/vmm/unix_socket.hpp"

namespace tools {

using nlohmann::json;
using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;

Result<ControlClient> ControlClient::connect(const std::string& name) {
    if (name.find('/') == std::string::npos) {
        TRY(parse_guest_name(name));
    }
    const std::string path = control_path(name);
    auto socket = connect_unix(path);
    if (!socket && socket.error().code() == Code::closed) {
        return fail(Code::closed, "no guest answers at {}; `vmm list` shows those that run", path);
    }
    return ControlClient{TRY(std::move(socket)), name};
}

Result<void> ControlClient::send(const json& request) {
    const std::string line = line_of(request) + "\n";
    std::size_t sent = 0;
    while (sent < line.size()) {
        const ssize_t n = ::send(socket_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
        if (n >= 0) {
            sent += static_cast<std::size_t>(n);
        } else if (errno != EINTR) {
            return fail_errno(Code::closed, "ask guest {}", name_);
        }
    }
    return {};
}

Result<std::optional<json>> ControlClient::next() {
    const auto line = in_.next();
    if (!line) {
        return std::optional<json>{};
    }
    json object = json::parse(*line, nullptr, false);
    if (!object.is_object()) {
        return fail(Code::protocol, "guest {} does not speak the language of this vmm; use the same version",
                    name_);
    }
    return std::optional{std::move(object)};
}

Result<json> ControlClient::receive(std::optional<vmm::Duration> limit) {
    const vmm::TimePoint until = vmm::real_clock().now() + limit.value_or(vmm::Duration{});
    for (;;) {
        if (auto object = TRY(next())) {
            return std::move(*object);
        }
        if (limit) {
            const auto left =
                std::chrono::ceil<std::chrono::milliseconds>(until - vmm::real_clock().now()).count();
            pollfd entry{socket_.get(), POLLIN, 0};
            if (left <= 0 || ::poll(&entry, 1, static_cast<int>(left)) == 0) {
                return fail(Code::timeout,
                            "guest {} does not answer: its process is stopped or very busy; "
                            "see what `ps` says of it",
                            name_);
            }
        }
        TRY(fill());
    }
}

Result<void> ControlClient::fill() {
    std::array<char, 16384> bytes;
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (got > 0) {
        in_.append({bytes.data(), static_cast<std::size_t>(got)});
    } else if (got == 0 || errno != EINTR) {
        return fail(Code::closed, "the process of guest {} has ended, or gave up on this client", name_);
    }
    if (in_.overflowed()) {
        return fail(Code::protocol, "guest {} sent a line longer than {} bytes", name_, kMaxReply);
    }
    return {};
}

Result<void> ControlClient::greet() {
    TRY(call({{"command", "status"}}, kPromptReply));
    return {};
}

Result<json> ControlClient::exchange(const json& request, std::optional<vmm::Duration> limit) {
    TRY(send(request));
    return receive(limit);
}

Result<json> ControlClient::call(const json& request, std::optional<vmm::Duration> limit) {
    json reply = TRY(exchange(request, limit));
    if (field(reply, "ok") != true) {
        return vmm::Failure{error_of(reply)};
    }
    return reply;
}

vmm::Error error_of(const json& reply) {
    return {Code::refused, one_line(reason_of(field(reply, "error")))};
}

migration::Reason reason_of(const json& reason) {
    return {text_of(reason, "code"), text_of(reason, "what"), text_of(reason, "where"),
            text_of(reason, "do")};
}

migration::Reason reason_of(const vmm::Error& error, const std::string& name) {
    const char* code = "cannot_ask";
    if (error.code() == Code::closed) {
        code = "no_guest";
    } else if (error.code() == Code::timeout) {
        code = "no_answer";
    }
    // Our texts end with what to do.
    const std::string& text = error.text();
    const std::size_t remedy = text.rfind("; ");
    if (remedy == std::string::npos) {
        return {code, text, name, "`vmm list` shows the guests that run"};
    }
    return {code, text.substr(0, remedy), name, text.substr(remedy + 2)};
}

const json& field(const json& object, const char* name) {
    static const json missing;
    const auto found = object.find(name);
    return found == object.end() ? missing : *found;
}

std::string text_of(const json& object, const char* name) {
    const json& value = field(object, name);
    return value.is_string() ? value.get<std::string>() : std::string{};
}

}  // namespace tools
