// Catch2's implementation, which takes far longer to compile than any test, alone in one file.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
