#include "tools/vmm/unix_socket.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

namespace tools {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;
using vmm::UniqueFd;

namespace {

constexpr int kBacklog = 64;

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    TRY(check_socket_length(path));
    std::copy(path.begin(), path.end(), address.sun_path);
    return address;
}

// Between finding a socket stale and replacing it another process may do the same: one at a time in a
// directory.
Result<UniqueFd> lock_directory_of(const std::string& path) {
    const std::string directory = directory_of(path);
    UniqueFd fd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd || ::flock(fd.get(), LOCK_EX) != 0) {
        return fail_errno(Code::io, "open directory {} for a control socket", directory);
    }
    return fd;
}

Result<void> remove_stale(const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        return {};
    }
    if (!S_ISSOCK(status.st_mode)) {
        return fail(Code::invalid, "{} exists and is not a socket; choose another path", path);
    }
    if (TRY(is_listening(path))) {
        return fail(Code::invalid, "control socket {} is in use by another process; choose another", path);
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return fail_errno(Code::io, "remove the stale socket {}", path);
    }
    return {};
}

}  // namespace

std::string directory_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
}

Result<void> check_socket_length(const std::string& path) {
    constexpr std::size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
    if (path.size() > kLongest) {
        return fail(Code::limit, "socket path {} is longer than {} bytes; use a shorter one", path, kLongest);
    }
    return {};
}

Result<UnixListener> UnixListener::listen(const std::string& path) {
    const sockaddr_un address = TRY(address_of(path));
    const UniqueFd lock = TRY(lock_directory_of(path));
    TRY(remove_stale(path));
    UniqueFd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    // The mode of the descriptor becomes that of the file, without a moment in which others may connect.
    if (!fd || ::fchmod(fd.get(), 0600) != 0 ||
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(fd.get(), kBacklog) != 0) {
        return fail_errno(Code::io, "listen on control socket {}", path);
    }
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        return fail_errno(Code::io, "look at control socket {}", path);
    }
    return UnixListener{std::move(fd), path, status.st_ino};
}

void UnixListener::close() {
    if (!socket_) {
        return;
    }
    // The file may have been removed by hand and the path taken since; the lock keeps it as it is found here.
    const auto lock = lock_directory_of(path_);
    struct stat status {};
    if (lock && ::lstat(path_.c_str(), &status) == 0 && status.st_ino == inode_) {
        ::unlink(path_.c_str());
    }
    socket_.reset();
}

Result<UniqueFd> connect_unix(const std::string& path) {
    const sockaddr_un address = TRY(address_of(path));
    UniqueFd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!fd) {
        return fail_errno(Code::io, "socket");
    }
    // A process that is stopped may let its queue of connections fill up.
    const timeval patience{2, 0};
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        if (errno == EAGAIN) {
            return fail(Code::timeout,
                        "nobody takes connections at {}: the process is stopped or very busy; see what `ps` "
                        "says of it",
                        path);
        }
        if (errno == EACCES || errno == EPERM) {
            return fail(Code::io, "socket {} is not yours to connect to; ask as the user whose guest it is",
                        path);
        }
        const Code code = errno == ECONNREFUSED || errno == ENOENT ? Code::closed : Code::io;
        return fail_errno(code, "connect to socket {}", path);
    }
    return fd;
}

Result<bool> is_listening(const std::string& path) {
    const auto connected = connect_unix(path);
    if (connected || connected.error().code() == Code::timeout) {
        return true;
    }
    if (connected.error().code() == Code::closed) {
        return false;
    }
    return vmm::Failure{connected.error()};
}

}  // namespace tools
