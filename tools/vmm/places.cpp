#include "tools/vmm/places.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace tools {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;

namespace {

constexpr const char* kSuffix = ".sock";

}  // namespace

std::string runtime_directory() {
    const char* base = std::getenv("XDG_RUNTIME_DIR");
    return std::string{base != nullptr && *base != '\0' ? base : "/run"} + "/vmm";
}

Result<std::string> open_runtime_directory() {
    const std::string path = runtime_directory();
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail_errno(
            Code::io, "create {} for control sockets (set XDG_RUNTIME_DIR to a directory of yours)", path);
    }
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        return fail_errno(Code::io, "look at {}", path);
    }
    if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 022) != 0) {
        return fail(Code::invalid,
                    "{} is not a directory that only you may write in; set XDG_RUNTIME_DIR to one", path);
    }
    return path;
}

std::string control_path(const std::string& name) {
    return name.find('/') != std::string::npos ? name : runtime_directory() + "/" + name + kSuffix;
}

std::vector<std::string> control_sockets() {
    std::vector<std::string> paths;
    std::error_code error;
    for (std::filesystem::directory_iterator entry{runtime_directory(), error}, end; !error && entry != end;
         entry.increment(error)) {
        std::error_code ignored;
        if (entry->path().extension() == kSuffix && entry->is_socket(ignored)) {
            paths.push_back(entry->path().string());
        }
    }
    std::sort(paths.begin(), paths.end());
    return paths;
}

Result<std::string> state_directory(const std::string& given) {
    return given.empty() ? TRY(open_runtime_directory()) + "/records" : given;
}

}  // namespace tools
