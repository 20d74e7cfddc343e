#include "tools/vmm/path_checks.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "migration/record.hpp"
#include "tools/vmm/places.hpp"
#include "tools/vmm/unix_socket.hpp"
#include "vmm/base/advice.hpp"

namespace tools {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;

namespace {

Result<void> check_directory_of(const std::string& path, const char* what) {
    const std::string directory = directory_of(path);
    if (::access(directory.c_str(), W_OK | X_OK) != 0) {
        return advise(fail_errno(Code::io, "directory {} of {} {}", directory, what, path),
                      "make it, or choose another path");
    }
    struct stat status {};
    if (::stat(directory.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
        return fail(Code::invalid, "{} of {} {} is not a directory; choose another path", directory, what,
                    path);
    }
    return {};
}

Result<void> check_file(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        return check_directory_of(path, "serial file");
    }
    if (S_ISDIR(status.st_mode)) {
        return fail(Code::invalid, "serial file {} is a directory; choose another path", path);
    }
    if (::access(path.c_str(), W_OK) != 0) {
        return advise(fail_errno(Code::io, "serial file {}", path),
                      "make it writable, or choose another path");
    }
    return {};
}

}  // namespace

Result<void> check_socket_path(const std::string& path, const char* what) {
    TRY(check_socket_length(path));
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
        return fail(Code::invalid, "{} {} exists and is not a socket; choose another path", what, path);
    }
    return check_directory_of(path, what);
}

Result<std::string> control_place(const GuestOptions& options, const std::string& name) {
    if (!options.control.empty()) {
        TRY(check_socket_path(options.control, "control socket"));
        return options.control;
    }
    TRY(open_runtime_directory());
    const std::string path = control_path(name);
    TRY(check_socket_length(path));
    return path;
}

Result<void> check_serial(const devices::SerialConfig& config, bool in_use) {
    switch (config.kind) {
        case devices::SerialConfig::Kind::file:
            return check_file(config.path);
        case devices::SerialConfig::Kind::socket:
            TRY(check_socket_path(config.path, "serial socket"));
            if (in_use && TRY(is_listening(config.path))) {
                return fail(Code::invalid,
                            "serial socket {} is in use by another process; choose another path",
                            config.path);
            }
            return {};
        case devices::SerialConfig::Kind::stdio:
        case devices::SerialConfig::Kind::null:
            break;
    }
    return {};
}

Result<void> check_back_ends(const GuestOptions& options) {
    std::size_t on_stdio = 0;
    for (const devices::SerialConfig& config : back_ends(options)) {
        TRY(check_serial(config, false));
        on_stdio += config.kind == devices::SerialConfig::Kind::stdio ? 1 : 0;
    }
    if (on_stdio > 1) {
        return fail(Code::invalid,
                    "serial port and console are both on stdio; give one of them another back end, as in "
                    "--serial null");
    }
    return {};
}

migration::Reason reason_from(std::string code, const vmm::Error& error, std::string where) {
    const std::string& text = error.text();
    const std::size_t remedy = text.rfind("; ");
    return {std::move(code), text.substr(0, std::min(remedy, migration::kMaxTextBytes)), std::move(where),
            remedy == std::string::npos ? "see the log of `vmm receive`"
                                        : text.substr(remedy + 2, migration::kMaxTextBytes)};
}

Result<void> check_records(const std::string& path) {
    constexpr const char* kRemedy = "give another --state-dir";
    TRY(advise(migration::RecordDirectory::open(path), kRemedy));
    if (::access(path.c_str(), W_OK | X_OK) != 0) {
        return advise(fail_errno(Code::io, "record directory {}", path), kRemedy);
    }
    return {};
}

}  // namespace tools
