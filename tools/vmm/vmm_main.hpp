// The whole program, for main() and for tests that look into it.
#pragma once

#include "migration/event.hpp"

namespace tools {

// `extra`, if there is one, sees every event of every migration, on the thread and in the process where it
// happens.
int vmm_main(int argc, char** argv, migration::EventSink* extra);

}  // namespace tools
