#include "tools/vmm/vmm_main.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "migration/message.hpp"
#include "tools/vmm/commands.hpp"
#include "tools/vmm/guest_process.hpp"
#include "tools/vmm/log.hpp"
#include "vmm/base/thread.hpp"

namespace tools {

namespace {

// Both ends of a migration must agree on this number.
const std::string kVersion = fmt::format("vmm of Godwit, migration protocol {}", migration::kProtocolVersion);

// A descriptor that was closed at the start would be reused, by a socket or a record, and what is printed for
// a person would go there.
bool fill_standard_descriptors() {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
        // open() takes the lowest number that is free.
        if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) {
            return false;
        }
    }
    return true;
}

int run_command(int argc, char** argv, migration::EventSink* extra) {
    CLI::App app{"Runs a virtual machine on KVM, and moves it to another host while it runs.", "vmm"};
    app.set_version_flag("--version", kVersion);
    app.require_subcommand(1);
    Commands commands{app, extra, {}};
    for (const auto add : {add_run, add_receive, add_migrate, add_cancel, add_resolve, add_preflight,
                           add_status, add_list, add_pause, add_resume, add_stop, add_events}) {
        add(commands);
    }
    const auto is_meant = [&](CLI::App* command) { return command->check_name(argv[1]); };
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands(is_meant).empty()) {
        log_line("there is no command \"{}\"; see `vmm --help`", argv[1]);
        return kUsageStatus;
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) {
            return app.exit(error);  // --help
        }
        std::string command = "vmm";
        for (const CLI::App* chosen : app.get_subcommands()) {
            command += " " + chosen->get_name();
        }
        log_line("{}; see `{} --help`", error.what(), command);
        return kUsageStatus;
    }
    return commands.chosen();
}

}  // namespace

int vmm_main(int argc, char** argv, migration::EventSink* extra) {
    if (!fill_standard_descriptors()) {
        return kFailureStatus;
    }
    vmm::use_cpu_for(vmm::CpuUse::service);
    const int status = run_command(argc, argv, extra);
    std::cout.flush();  // --help
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout) {
        log_line("standard output did not take all that was to be printed; see that its disk is not full");
        return kFailureStatus;
    }
    return status;
}

}  // namespace tools
