// Unix sockets in the file system: those that vmm listens on are found by name, so a name must have one
// owner.
#pragma once

#include <sys/types.h>

#include <string>

#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace tools {

// A listening socket, mode 0600; the file goes with the object. The file of a process that died is replaced.
class UnixListener {
  public:
    // Code::invalid: a living process listens there, or it is no socket; another path may do.
    static vmm::Result<UnixListener> listen(const std::string& path);
    UnixListener(UnixListener&& other) noexcept = default;
    UnixListener& operator=(UnixListener&& other) = delete;
    ~UnixListener() { close(); }

    // Non-blocking.
    int fd() const { return socket_.get(); }
    const std::string& path() const { return path_; }
    // Ends it early.
    void close();

  private:
    UnixListener(vmm::UniqueFd socket, std::string path, ino_t inode)
        : socket_(std::move(socket)), path_(std::move(path)), inode_(inode) {}

    vmm::UniqueFd socket_;
    std::string path_;
    ino_t inode_;
};

std::string directory_of(const std::string& path);
// Code::limit: no socket can have so long a path.
vmm::Result<void> check_socket_length(const std::string& path);

// Blocking, close-on-exec. Code::closed: no process listens there. Code::timeout: one does, but takes nobody.
vmm::Result<vmm::UniqueFd> connect_unix(const std::string& path);

// Whether a living process listens there; an error when that cannot be found out.
vmm::Result<bool> is_listening(const std::string& path);

}  // namespace tools
