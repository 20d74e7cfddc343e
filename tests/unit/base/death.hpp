// Whether a broken invariant ends the process, tried in a child of its own.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tests {

// True when `f` aborts.
template <typename F>
bool aborts(F&& f) {
    const pid_t child = ::fork();
    if (child == 0) {
        // Catch2 would report the signal as a failure of the test; nobody wants the message or a core file.
        ::signal(SIGABRT, SIG_DFL);
        const rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
        ::dup2(null, STDERR_FILENO);
        f();
        ::_exit(0);
    }
    int status = 0;
    return child > 0 && ::waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGABRT;
}

}  // namespace tests
