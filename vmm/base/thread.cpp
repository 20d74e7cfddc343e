#include "vmm/base/thread.hpp"

#include <pthread.h>

namespace vmm {

Result<std::thread> start_thread(std::string name, std::function<void()> function) {
    const std::string called = name;
    // std::thread tells of a full host in no other way.
    try {
        return std::thread{[name = std::move(name), function = std::move(function)] {
            ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
            function();
        }};
    } catch (const std::system_error& error) {
        return Failure{Error::from_errno(
            Code::io,
            fmt::format("no thread for `{}`, allow more of them (pids.max of the control group, `ulimit -u`)",
                        called),
            error.code().value())};
    }
}

}  // namespace vmm
