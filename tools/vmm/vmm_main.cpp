#include "tools/vmm/vmm_main.hpp"

#include "tools/vmm/commands.hpp"
#include "tools/vmm/log.hpp"

namespace tools {

int vmm_main(int argc, char** argv, migration::EventSink* extra) {
    CLI::App app{"Runs a virtual machine on KVM, and moves it to another host while it runs.", "vmm"};
    app.require_subcommand(1);
    Commands commands{app, extra, {}};
    for (const auto add : {add_run, add_receive, add_migrate, add_cancel, add_resolve, add_preflight,
                           add_status, add_list, add_pause, add_resume, add_stop, add_events}) {
        add(commands);
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

}  // namespace tools
